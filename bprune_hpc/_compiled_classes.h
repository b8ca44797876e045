/* What draws say of classes, on a fixed-point grid; included once for each set of instructions.

   Examples are worked on EXAMPLES at a time, in the same way wherever they stand. */

typedef float NAME(floats) __attribute__((vector_size(4 * EXAMPLES), aligned(4), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * EXAMPLES), may_alias));
typedef double NAME(doubles) __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t NAME(longs) __attribute__((vector_size(64), aligned(8), may_alias));

#define DOUBLES NAME(doubles)
#define LONGS NAME(longs)
#define HALVES (EXAMPLES / 8)
#define CHOOSE(mask, yes, no) ((DOUBLES)(((LONGS)(yes) & (mask)) | ((LONGS)(no) & ~(mask))))

/* exp(x) for -700 <= x <= 0: 2**n times Taylor's series of what is left, at most log(2) / 2. */
#define EXP(result, x)                                                                            \
  do {                                                                                            \
    const DOUBLES scaled = (x) * 1.4426950408889634 + 0x1.8p52;                                   \
    const DOUBLES whole = scaled - 0x1.8p52;                                                      \
    const DOUBLES r = ((x) - whole * 0x1.62e42feep-1) - whole * 0x1.a39ef35793c76p-33;            \
    DOUBLES sum = r * (1.0 / 6227020800) + 1.0 / 479001600;                                       \
    sum = sum * r + 1.0 / 39916800;                                                               \
    sum = sum * r + 1.0 / 3628800;                                                                \
    sum = sum * r + 1.0 / 362880;                                                                 \
    sum = sum * r + 1.0 / 40320;                                                                  \
    sum = sum * r + 1.0 / 5040;                                                                   \
    sum = sum * r + 1.0 / 720;                                                                    \
    sum = sum * r + 1.0 / 120;                                                                    \
    sum = sum * r + 1.0 / 24;                                                                     \
    sum = sum * r + 1.0 / 6;                                                                      \
    sum = sum * r + 0.5;                                                                          \
    sum = sum * r + 1.0;                                                                          \
    sum = sum * r + 1.0;                                                                          \
    (result) = (DOUBLES)((LONGS)sum + ((LONGS)scaled << 52));                                     \
  } while (0)

/* log(x) for x >= 1: n log(2) and 2 atanh((m - 1) / (m + 1)), where x = m 2**n, m about 1. */
#define LOG(result, x)                                                                            \
  do {                                                                                            \
    const LONGS beyond = (LONGS)(x) - 0x3fe6a09e00000000;                                         \
    const DOUBLES power = (DOUBLES)((beyond >> 52) + 0x4330000000000000) - 0x1p52;                \
    const DOUBLES m = (DOUBLES)((beyond & 0x000fffffffffffff) + 0x3fe6a09e00000000);              \
    const DOUBLES s = (m - 1.0) / (m + 1.0);                                                      \
    const DOUBLES z = s * s;                                                                      \
    DOUBLES sum = z * (1.0 / 21) + 1.0 / 19;                                                      \
    sum = sum * z + 1.0 / 17;                                                                     \
    sum = sum * z + 1.0 / 15;                                                                     \
    sum = sum * z + 1.0 / 13;                                                                     \
    sum = sum * z + 1.0 / 11;                                                                     \
    sum = sum * z + 1.0 / 9;                                                                      \
    sum = sum * z + 1.0 / 7;                                                                      \
    sum = sum * z + 1.0 / 5;                                                                      \
    sum = sum * z + 1.0 / 3;                                                                      \
    sum = sum * z * s + s;                                                                        \
    (result) = power * 0x1.62e42feep-1 + (2.0 * sum + power * 0x1.a39ef35793c76p-33);             \
  } while (0)

/* The predictions of a draw for EXAMPLES examples, of which n are wanted, added to their sums.

   logits[class * stride + example]; sums[row * sums_stride + example], a row for each class and
   then two tails, squares, entropy, n_correct. weights: room for 2 * EXAMPLES numbers a class. */
TARGET static void NAME(add_classes)(const float *logits, ptrdiff_t stride, ptrdiff_t n_classes,
                                     const int32_t *label, int n, double *weights, int64_t *sums,
                                     ptrdiff_t sums_stride, int64_t *n_correct, int64_t *nll)
{
  double *shifted = weights + n_classes * EXAMPLES;
  NAME(floats) best = *(const NAME(floats) *)logits;
  NAME(ints) best_class = {0};
  for (ptrdiff_t c = 1; c < n_classes; c++) {
    const NAME(floats) value = *(const NAME(floats) *)(logits + c * stride);
    const NAME(ints) is_larger = value > best;
    best = (NAME(floats))(((NAME(ints))value & is_larger) | ((NAME(ints))best & ~is_larger));
    best_class = ((int32_t)c & is_larger) | (best_class & ~is_larger);
  }

  DOUBLES largest[HALVES], total[HALVES] = {0}, entropy[HALVES] = {0};
  for (int h = 0; h < HALVES; h++)
    for (int e = 0; e < 8; e++)
      largest[h][e] = best[8 * h + e];
  for (ptrdiff_t c = 0; c < n_classes; c++)
    for (int h = 0; h < HALVES; h++) {
      const float *of_class = logits + c * stride + 8 * h;
      DOUBLES x;
      for (int e = 0; e < 8; e++)
        x[e] = of_class[e];
      x -= largest[h];
      x = CHOOSE(x < -700.0, -700.0 - (DOUBLES){0}, x);
      DOUBLES weight;
      EXP(weight, x);
      total[h] += weight;
      entropy[h] += weight * x;
      *(DOUBLES *)(weights + c * EXAMPLES + 8 * h) = weight;
    }

  DOUBLES scale[HALVES], log_total[HALVES], squares[HALVES] = {0};
  for (int h = 0; h < HALVES; h++) {
    scale[h] = 1.0 / total[h];
    LOG(log_total[h], total[h]);
    entropy[h] = log_total[h] - entropy[h] * scale[h];
    entropy[h] = CHOOSE(entropy[h] < 0.0, (DOUBLES){0}, entropy[h]);
  }
  for (ptrdiff_t c = 0; c < n_classes; c++) {
    double *of_class = weights + c * EXAMPLES, *of_shifted = shifted + c * EXAMPLES;
    int64_t *out = sums + c * sums_stride;
    for (int h = 0; h < HALVES; h++) {
      const DOUBLES probability = *(DOUBLES *)(of_class + 8 * h) * scale[h];
      const DOUBLES on_grid = probability + SIX;
      *(DOUBLES *)(of_class + 8 * h) = probability;
      *(DOUBLES *)(of_shifted + 8 * h) = on_grid;
      squares[h] += probability * probability;
      if (n == EXAMPLES)
        *(LONGS *)(out + 8 * h) += (LONGS)on_grid - SIX_BITS;
    }
    for (int e = 0; n < EXAMPLES && e < n; e++)
      out[e] += bits_of(of_shifted[e]) - SIX_BITS;
  }

  int64_t *tails = sums + n_classes * sums_stride;
  for (int e = 0; e < n; e++) {
    const double at = largest[e / 8][e % 8] - logits[label[e] * stride + e];
    double of_true = log_total[e / 8][e % 8] + at;
    of_true = of_true > MAX_NLL ? MAX_NLL : of_true;
    *nll += bits_of(of_true + NLL_SHIFT) - bits_of(NLL_SHIFT);
    const int64_t is_correct = best_class[e] == label[e];
    *n_correct += is_correct;
    double rest = weights[label[e] * EXAMPLES + e] - (shifted[label[e] * EXAMPLES + e] - SIX);
    for (int tail = 0; tail < 2; tail++) { /* exact, as is each product with a power of two */
      rest *= ONE;
      tails[tail * sums_stride + e] += bits_of(rest + SIX) - SIX_BITS;
      rest -= (rest + SIX) - SIX;
    }
    tails[2 * sums_stride + e] += bits_of(squares[e / 8][e % 8] + SIX) - SIX_BITS;
    const double in_units = entropy[e / 8][e % 8] * ENTROPY_UNIT;
    tails[3 * sums_stride + e] += bits_of(in_units + SIX) - SIX_BITS;
    tails[4 * sums_stride + e] += is_correct;
  }
}

#undef DOUBLES
#undef LONGS
#undef HALVES
#undef CHOOSE
#undef EXP
#undef LOG
