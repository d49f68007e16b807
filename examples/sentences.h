/* What a sentence model has around its encoder: embeddings of tokens, pooling, a contrastive loss. */
#ifndef EXAMPLES_SENTENCES_H
#define EXAMPLES_SENTENCES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tables of BERT's embeddings: word [words,dim], position [positions,dim], type [1,dim], and the norm of their sum. */
struct tables {
    const float *word, *position, *type, *scale, *shift;
    int64_t words, positions, dim;
};

/* The encoder's input for a token; false: there is no such token or position. */
static inline bool embed_token(const struct tables *t, int32_t token, int64_t place, float *row) {
    double mean = 0, variance = 0;
    if (token < 0 || token >= t->words || place >= t->positions) return false;
    for (int64_t e = 0; e < t->dim; e++) {
        row[e] = t->word[token * t->dim + e] + t->position[place * t->dim + e] + t->type[e];
        mean += (double)row[e] / (double)t->dim;
    }
    for (int64_t e = 0; e < t->dim; e++) variance += pow((double)row[e] - mean, 2) / (double)t->dim;
    for (int64_t e = 0; e < t->dim; e++)
        row[e] = (float)(((double)row[e] - mean) / sqrt(variance + 1e-12)) * t->scale[e] + t->shift[e];
    return true;
}

struct sentences {
    int64_t count, length, dim;
    const bool *hidden; /* [count,length] padding */
    double *embeddings; /* [count,dim], of length 1 */
    double *sizes;      /* [count] what the sums of their rows were divided by */
};

static inline struct sentences sentences_of(int64_t count, int64_t length, int64_t dim, const bool *hidden) {
    double *memory = calloc((size_t)(count * (dim + 1)), sizeof *memory);
    if (!memory) perror("sentences"), exit(1);
    return (struct sentences){count, length, dim, hidden, memory, memory + count * dim};
}

/* Embeddings: the mean of the rows [count,length,dim] that are not hidden, brought to length 1. */
static inline void pool(const struct sentences *s, const float *rows) {
    memset(s->embeddings, 0, (size_t)(s->count * s->dim) * sizeof *s->embeddings);
    for (int64_t i = 0; i < s->count * s->length; i++)
        for (int64_t e = 0; e < s->dim && !s->hidden[i]; e++)
            s->embeddings[i / s->length * s->dim + e] += (double)rows[i * s->dim + e];
    for (int64_t n = 0; n < s->count; n++) {
        double *embedding = s->embeddings + n * s->dim, sum = 0;
        for (int64_t e = 0; e < s->dim; e++) sum += embedding[e] * embedding[e];
        s->sizes[n] = sqrt(sum);
        for (int64_t e = 0; e < s->dim; e++) embedding[e] /= s->sizes[n];
    }
}

static inline double cosine(const struct sentences *s, int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t e = 0; e < s->dim; e++) sum += s->embeddings[a * s->dim + e] * s->embeddings[b * s->dim + e];
    return sum;
}

static inline void print_cosines(const struct sentences *s) {
    for (int64_t i = 0; i < s->count * s->count; i++)
        printf("%7.3f%s", cosine(s, i / s->count, i % s->count), (i + 1) % s->count ? "" : "\n");
}

/* The gradient of the rows from that of an embedding. */
static inline void pool_gradient(const struct sentences *s, int64_t n, const double *gradient, float *drows) {
    const double *embedding = s->embeddings + n * s->dim;
    double along = 0;
    for (int64_t e = 0; e < s->dim; e++) along += embedding[e] * gradient[e];
    for (int64_t i = n * s->length; i < (n + 1) * s->length; i++)
        for (int64_t e = 0; e < s->dim; e++)
            drows[i * s->dim + e] =
                s->hidden[i] ? 0 : (float)((gradient[e] - embedding[e] * along) / s->sizes[n]);
}

/* Sentences 2i and 2i + 1 mean the same, others do not: cross entropy of 20 times the cosines of each even sentence with all odd
 * ones. Writes the gradient of the rows. */
static inline double contrastive_loss(const struct sentences *s, float *drows) {
    const double scale = 20, pairs = (double)(s->count / 2);
    double loss = 0, *gradients = calloc((size_t)(s->count * s->dim), sizeof *gradients);
    if (!gradients) perror("gradients"), exit(1);
    for (int64_t a = 0; a < s->count; a += 2) {
        double sum = 0, own = scale * cosine(s, a, a + 1);
        for (int64_t b = 1; b < s->count; b += 2) sum += exp(scale * cosine(s, a, b) - own);
        loss += log(sum) / pairs;
        for (int64_t b = 1; b < s->count; b += 2) {
            const double slope = scale * (exp(scale * cosine(s, a, b) - own) / sum - (b == a + 1)) / pairs;
            for (int64_t e = 0; e < s->dim; e++) {
                gradients[a * s->dim + e] += slope * s->embeddings[b * s->dim + e];
                gradients[b * s->dim + e] += slope * s->embeddings[a * s->dim + e];
            }
        }
    }
    for (int64_t n = 0; n < s->count; n++) pool_gradient(s, n, gradients + n * s->dim, drows);
    free(gradients);
    return loss;
}

#endif
