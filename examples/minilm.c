/* Sentence embeddings by all-MiniLM-L6-v2, a BERT of six layers, and its fine-tuning: ./dev minilm. Arguments are the model's
 * weights and a file of `tokens` I32 [N,L], `padding` BOOL [N,L], true for padding, `heads` I32 [1], `rate` F32 [1] and,
 * where PyTorch wrote them, `embeddings` F32 [N,D] and `losses` F64 [20] of training, which ours are compared with. */
#include "examples/safetensors.h"
#include "examples/sentences.h"
#include <flexjit/nn.h>

enum { LAYERS = 12, PARTS = 8, STEPS = 20 };

static const struct {
    const char *name;
    size_t offset;
} parts[PARTS] = {{"attention.self.query", offsetof(fj_encoder_layer, self_attn.q)},
                  {"attention.self.key", offsetof(fj_encoder_layer, self_attn.k)},
                  {"attention.self.value", offsetof(fj_encoder_layer, self_attn.v)},
                  {"attention.output.dense", offsetof(fj_encoder_layer, self_attn.out)},
                  {"attention.output.LayerNorm", offsetof(fj_encoder_layer, norm1)},
                  {"intermediate.dense", offsetof(fj_encoder_layer, linear1)},
                  {"output.dense", offsetof(fj_encoder_layer, linear2)},
                  {"output.LayerNorm", offsetof(fj_encoder_layer, norm2)}};

static tensor weights[LAYERS * PARTS * 2], gradients[LAYERS * PARTS * 2]; /* of each part weight and bias */
static fj_encoder_layer layers[LAYERS], dlayers[LAYERS];

/* Memory of the whole run. */
static tensor_file model, input;
static tensor word, tables[4], tokens, padding, heads, rates, src, out, drows, known;
static fj_nn_memory training;
static struct sentences s;

/* Points the layers' state into the file, and their gradients at memory of their own. Returns how many there are. */
static int load_layers(void) {
    for (int i = 0; i < LAYERS * PARTS * 2; i++) {
        const int layer = i / (2 * PARTS), p = i / 2 % PARTS, bias = i % 2;
        char name[128];
        snprintf(name, sizeof name, "encoder.layer.%d.%s.%s", layer, parts[p].name, bias ? "bias" : "weight");
        if (!file_find(&model, name, &weights[i])) return layer;
        void *memory = workspace_of((size_t)elements(&weights[i]) * sizeof(float));
        tensor_of(&gradients[i], memory, FJ_DTYPE_F32, weights[i].dl.ndim, weights[i].shape);
        ((const DLTensor **)((char *)&layers[layer] + parts[p].offset))[bias] = &weights[i].dl;
        ((const DLTensor **)((char *)&dlayers[layer] + parts[p].offset))[bias] = &gradients[i].dl;
    }
    return LAYERS;
}

static void descend(int layer_count, float rate) {
    for (int i = 0; i < layer_count * PARTS * 2; i++)
        for (int64_t e = 0; e < elements(&weights[i]); e++)
            ((float *)weights[i].dl.data)[e] -= rate * ((float *)gradients[i].dl.data)[e];
}

int main(int argc, char **argv) {
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    fj_encoder *encoder;
    if (argc != 3) return fprintf(stderr, "usage: minilm MODEL.safetensors TOKENS.safetensors\n"), 2;
    file_open(&model, argv[1]), file_open(&input, argv[2]), open_cpu(&context, &device);
    const int32_t *token = file_need(&input, "tokens", &tokens)->data;
    struct tables embedding = {
        .word = file_need(&model, "embeddings.word_embeddings.weight", &word)->data,
        .position = file_need(&model, "embeddings.position_embeddings.weight", &tables[0])->data,
        .type = file_need(&model, "embeddings.token_type_embeddings.weight", &tables[1])->data,
        .scale = file_need(&model, "embeddings.LayerNorm.weight", &tables[2])->data,
        .shift = file_need(&model, "embeddings.LayerNorm.bias", &tables[3])->data};
    embedding.words = word.shape[0], embedding.positions = tables[0].shape[0], embedding.dim = word.shape[1];
    fj_encoder_desc desc = {.struct_size = sizeof desc, .dtype = FJ_DTYPE_F32, .layer_count = load_layers()};
    desc.layer = (fj_layer_desc){.d_model = embedding.dim,
                                 .heads = *(int32_t *)file_need(&input, "heads", &heads)->data,
                                 .dim_feedforward = layers[0].linear1.weight->shape[0],
                                 .activation = FJ_ACTIVATION_GELU,
                                 .norm_eps = 1e-12,
                                 .batch_first = true};
    desc.key_padding_mask = FJ_MASK_BOOL, desc.skip_padding = true;
    fj_status status = fj_encoder_create(device, &desc, &encoder, &error);
    if (status == FJ_ERR_UNSUPPORTED) return fprintf(stderr, "%s\n", error.text), 77; /* no BLAS: skipped */
    must(status, &error);

    const int64_t shape[] = {tokens.shape[0], tokens.shape[1], embedding.dim}, rows = shape[0] * shape[1];
    tensor *const activations[] = {&src, &out, &drows};
    for (int i = 0; i < 3; i++)
        tensor_of(activations[i], workspace_of((size_t)(rows * shape[2]) * sizeof(float)), FJ_DTYPE_F32, 3,
                  shape);
    for (int64_t i = 0; i < rows; i++)
        if (!embed_token(&embedding, token[i], i % shape[1], (float *)src.dl.data + i * shape[2]))
            return fprintf(stderr, "sentence %d does not fit the model\n", (int)(i / shape[1])), 1;
    s = sentences_of(shape[0], shape[1], shape[2], file_need(&input, "padding", &padding)->data);
    fj_encoder_call call = {.struct_size = sizeof call, .layers = layers, .src = &src.dl, .out = &out.dl};
    call.key_padding_mask = &padding.dl, call.dout = &drows.dl, call.dlayers = dlayers;
    fj_nn_sizes sizes;
    must(fj_encoder_sizes(encoder, &call, NULL, &sizes, &error), &error);
    training.workspace_size = sizes.forward > sizes.backward ? sizes.forward : sizes.backward;
    training.workspace = workspace_of(training.workspace_size);
    const fj_nn_memory evaluation = training; /* saves nothing */
    training.saved = workspace_of(sizes.saved), training.saved_size = sizes.saved;

    must(fj_encoder_forward(encoder, &call, NULL, &evaluation, &error), &error);
    pool(&s, out.dl.data);
    printf("cosine similarity of each sentence with each:\n");
    print_cosines(&s);
    double worst = 0, worst_loss = 0, loss = 0, first = 0;
    const float *expected = file_find(&input, "embeddings", &known) ? known.dl.data : NULL;
    for (int64_t i = 0; expected && i < s.count * s.dim; i++)
        worst = fmax(worst, fabs(s.embeddings[i] - (double)expected[i]));
    if (expected) printf("embeddings: largest difference from PyTorch's %.1e\n", worst);
    const double *losses = file_find(&input, "losses", &known) ? known.dl.data : NULL;
    for (int step = 0; step < STEPS; step++) {
        must(fj_encoder_forward(encoder, &call, NULL, &training, &error), &error);
        pool(&s, out.dl.data);
        loss = contrastive_loss(&s, drows.dl.data);
        must(fj_encoder_backward(encoder, &call, NULL, &training, &error), &error);
        descend((int)desc.layer_count, *(float *)file_need(&input, "rate", &rates)->data);
        if (step == 0) first = loss;
        if (losses) worst_loss = fmax(worst_loss, fabs(loss / losses[step] - 1));
        printf(losses ? "step %2d: loss %.6f, PyTorch's %.6f\n" : "step %2d: loss %.6f\n", step, loss,
               losses ? losses[step] : 0);
    }
    fj_encoder_unref(&encoder), fj_device_unref(&device), fj_context_unref(&context);
    return worst < 1e-5 && worst_loss < 1e-4 && loss < first ? 0 : 1;
}
