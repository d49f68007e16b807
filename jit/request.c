#include <string.h>

#include "base/clock.h"
#include "jit/request.h"

fj_status fj_request_create(const fj_jit_problem *problem, const fj_variant *variant,
                            const fj_allocator *allocator, fj_request *ret_request, fj_error *error) {
    const double start = fj_now_ms();
    fj_rendered rendered;
    *ret_request = (fj_request){.variant = variant};
    fj_buf_init(&ret_request->code_buffer, allocator);
    fj_buf_init(&ret_request->text_buffer, allocator);
    fj_jit_options(variant, &ret_request->options);
    fj_buf *text = &ret_request->text_buffer;
    fj_status status =
        fj_jit_render(problem, variant, allocator, &ret_request->code_buffer, &rendered, error);
    if (status == FJ_OK) status = fj_jit_request_text(problem, variant, allocator, text, error);
    if (status != FJ_OK) return status;
    ret_request->code = rendered.source;
    ret_request->text = (fj_str){text->data, text->len};
    ret_request->key = fj_cache_digest(text->data, text->len);
    ret_request->source = fj_jit_source_digest(rendered.source, &ret_request->options);
    ret_request->render_ms = fj_now_ms() - start;
    return FJ_OK;
}

void fj_request_finish(fj_request *request) {
    fj_buf_finish(&request->text_buffer);
    fj_buf_finish(&request->code_buffer);
}

fj_digest fj_jit_source_digest(fj_str source, const fj_options *options) {
    fj_digest digest = fj_cache_digest(source.data, source.len);
    for (const char *const *option = options->list; *option; option++) {
        fj_digest link[2] = {digest, fj_cache_digest(*option, strlen(*option))};
        digest = fj_cache_digest(link, sizeof link);
    }
    return digest;
}

fj_digest fj_jit_content_key(fj_digest source, const fj_compiler *compiler) {
    fj_digest parts[3] = {
        source,
        fj_cache_digest(compiler->path, strlen(compiler->path)),
        fj_cache_digest(compiler->version, strlen(compiler->version)),
    };
    return fj_cache_digest(parts, sizeof parts);
}
