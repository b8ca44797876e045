/* A graph of layers on slabs of examples; included once for each set of instructions.

   A tensor lies as [slab][channel][row][column][example], with SLAB examples to a slab, so that a
   weight multiplies whole vectors. GROUP_SLABS slabs go through all layers before the next ones do.
   A convolution is a list of offsets, and of weights, for each filter, or for FILTERS of them
   together; a dense layer is one whose window is all of its input. Sums are worked on in tiles of
   two halves, each of columns, and slabs where there are few of these. What their windows see of a
   block of inputs is first put together, zeros outside of the image too, as
   [channel][row][column][slab][example]: it stays in the first cache while all lists go over it,
   and the places of a half lie side by side. A sum's terms are added in the order of its lists,
   whatever tile it is in. */

#define AT_ONCE (LANES == 16 ? 4 : 2) /* vectors of a product that are worked on together */
#define PART (LANES * AT_ONCE)        /* numbers */
#define VECTOR NAME(vector)
#define INTS NAME(lanes)
#define CHOSEN(mask, yes, no) ((VECTOR)(((INTS)(yes) & (mask)) | ((INTS)(no) & ~(mask))))
#define UNROLLED _Pragma("GCC unroll 16")
#ifdef __x86_64__
#define HELD(value) __asm__("" : "+v"(value)) /* in a register, for many products */
#else
#define HELD(value) (void)(value)
#endif

typedef int32_t INTS __attribute__((vector_size(4 * LANES), may_alias));

/* A sum as it leaves a layer: scaled, shifted, with the other branch's number, within bounds. */
TARGET static inline __attribute__((always_inline)) VECTOR
NAME(finished)(VECTOR sum, float scale, float shift, const float *other, struct bounds bounds)
{
  VECTOR value = sum * scale + shift;
  if (other)
    value += *(const VECTOR *)other;
  const VECTOR low = bounds.low - (VECTOR){0}, high = bounds.high - (VECTOR){0};
  value = CHOSEN(low > value, low, value);
  return CHOSEN(high < value, high, value);
}

/* Where a vector of a filter's sums is between blocks of inputs, by its place in a tile. */
static inline __attribute__((always_inline)) float *NAME(kept)(const struct part *part,
                                                               ptrdiff_t filter, int at)
{
  return part->sums + filter * 2 * VECTORS_OF_HALF * SLAB + at;
}

/* Store a vector of a filter's sums when all inputs are in it. */
TARGET static inline __attribute__((always_inline)) void
NAME(finish)(const struct sums *s, const struct part *part, ptrdiff_t filter, int at, VECTOR sum,
             float *out, const float *other)
{
  if (!(part->is_used >> at / SLAB & 1))
    return;
  if (other)
    other += filter * s->other_channel + part->other[at / SLAB] + at % SLAB;
  *(VECTOR *)(out + filter * s->out_channel + part->out[at / SLAB] + at % SLAB) =
      NAME(finished)(sum, s->scale[filter], s->shift[filter], other, s->bounds);
}

/* Each filter alone, in n_vectors of both halves of a tile. */
TARGET static inline __attribute__((always_inline)) void
NAME(alone)(const struct convolution *c, const struct sums *s, const struct part *part,
            const int n_vectors, float *out, const float *other)
{
  enum { MOST = LANES == 16 ? VECTORS_OF_HALF : 4 };
  const int at_once = n_vectors < MOST ? n_vectors : MOST;
  const int32_t *offsets = c->offsets;
  const float *values = s->values;
  for (ptrdiff_t filter = 0; filter < c->n_filters; filter++)
    for (int first = 0; first < n_vectors * SLAB; first += at_once * LANES) {
      const float *upper = part->near + first, *lower = upper + c->half;
      const int of_half = VECTORS_OF_HALF * SLAB;
      VECTOR sum[2][MOST] = {0};
      if (!part->is_first)
        UNROLLED for (int v = 0; v < 2 * at_once; v++)
          sum[v / at_once][v % at_once] = *(const VECTOR *)NAME(kept)(
              part, filter, v / at_once * of_half + first + v % at_once * LANES);
      const ptrdiff_t stop = part->starts[filter + 1];
      for (ptrdiff_t k = part->starts[filter]; k < stop; k++) {
        VECTOR value = values[k] - (VECTOR){0};
        HELD(value);
        for (int v = 0; v < at_once; v++)
          sum[0][v] += value * *(const VECTOR *)(upper + offsets[k] + v * LANES);
        for (int v = 0; v < at_once; v++)
          sum[1][v] += value * *(const VECTOR *)(lower + offsets[k] + v * LANES);
      }
      if (!part->is_last)
        UNROLLED for (int v = 0; v < 2 * at_once; v++)
          *(VECTOR *)NAME(kept)(part, filter,
                                v / at_once * of_half + first + v % at_once * LANES) =
              sum[v / at_once][v % at_once];
      else
        UNROLLED for (int v = 0; v < 2 * at_once; v++)
          NAME(finish)(s, part, filter, v / at_once * of_half + first + v % at_once * LANES,
                       sum[v / at_once][v % at_once], out, other);
    }
}

/* FILTERS filters at a time in AT_ONCE vectors of a tile. */
TARGET static void NAME(together)(const struct convolution *c, const struct sums *s,
                                  const struct part *part, float *out, const float *other)
{
  const int32_t *offsets = c->offsets;
  for (ptrdiff_t list = 0; list * FILTERS < c->n_filters; list++)
    for (int first = 0; first < 2 * VECTORS_OF_HALF * SLAB; first += PART) {
      const ptrdiff_t filter = list * FILTERS, n_left = c->n_filters - filter;
      const int n = n_left < FILTERS ? (int)n_left : FILTERS;
      if (!(part->is_used >> first / SLAB & ((1 << (PART + SLAB - 1) / SLAB) - 1)))
        continue;
      const float *near = part->near + first % (VECTORS_OF_HALF * SLAB) +
                          (first < VECTORS_OF_HALF * SLAB ? 0 : c->half);
      VECTOR sum[FILTERS][AT_ONCE] = {0};
      if (!part->is_first)
        UNROLLED for (int f = 0; f < FILTERS; f++)
          UNROLLED for (int v = 0; v < AT_ONCE; v++)
            if (f < n)
              sum[f][v] = *(const VECTOR *)NAME(kept)(part, filter + f, first + v * LANES);
      const ptrdiff_t start = part->starts[list], stop = part->starts[list + 1];
      const float *weights = s->values + start * FILTERS;
      for (ptrdiff_t k = start; k < stop; k++, weights += FILTERS) {
        const float *x = near + offsets[k];
        VECTOR numbers[AT_ONCE];
        for (int v = 0; v < AT_ONCE; v++)
          numbers[v] = *(const VECTOR *)(x + v * LANES);
        for (int f = 0; f < FILTERS; f++) {
          VECTOR weight = weights[f] - (VECTOR){0};
          HELD(weight);
          for (int v = 0; v < AT_ONCE; v++)
            sum[f][v] += weight * numbers[v];
        }
      }
      UNROLLED for (int f = 0; f < FILTERS; f++)
        UNROLLED for (int v = 0; v < AT_ONCE; v++)
          if (f < n && part->is_last)
            NAME(finish)(s, part, filter + f, first + v * LANES, sum[f][v], out, other);
          else if (f < n)
            *(VECTOR *)NAME(kept)(part, filter + f, first + v * LANES) = sum[f][v];
    }
}

/* Put together what a tile sees of some channels. */
TARGET static void NAME(gather)(const int32_t *sources, ptrdiff_t n_sources, ptrdiff_t n_together,
                                ptrdiff_t in_slab, ptrdiff_t in_channel, ptrdiff_t n_channels,
                                const float *in, float *near)
{
  for (ptrdiff_t channel = 0; channel < n_channels; channel++, in += in_channel)
    for (ptrdiff_t at = 0; at < n_sources; at++)
      for (ptrdiff_t slab = 0; slab < n_together; slab++, near += SLAB)
        for (int e = 0; e < SLAB; e += LANES)
          *(VECTOR *)(near + e) =
              sources[at] < 0 ? (VECTOR){0}
                              : *(const VECTOR *)(in + sources[at] + slab * in_slab + e);
}

/* All filters of a convolution, in slabs that a tile has together.

   room: for what a tile sees of a block of inputs, and for its sums. */
TARGET static void NAME(convolve)(const struct convolution *c, const struct sums *s,
                                  const struct slabs *slabs, const float *in, float *out,
                                  const float *other, float *room)
{
  const ptrdiff_t n_lists = (c->n_filters + c->width - 1) / c->width, n = c->n_together;
  struct part part = {.near = room};
  part.sums = room + (c->block * c->n_sources * n + VECTORS_OF_HALF) * SLAB;
  for (ptrdiff_t at = 0; at < c->n_tiles; at++) {
    const struct tile *tile = &c->tiles[at];
    part.is_used = 0;
    for (int v = 0; v < 2 * VECTORS_OF_HALF; v++) {
      const int half = v / VECTORS_OF_HALF;
      const ptrdiff_t column = v % VECTORS_OF_HALF / n, slab = v % VECTORS_OF_HALF % n;
      part.is_used |= (column < tile->n_columns[half]) << v;
      part.out[v] = tile->out[half] + column * slabs->out_column + slab * slabs->out;
      part.other[v] = tile->other[half] + column * slabs->other_column + slab * slabs->other;
    }
    const int n_most = tile->n_columns[tile->n_columns[1] > tile->n_columns[0]];
    for (ptrdiff_t block = 0; block < c->n_blocks; block++) {
      const ptrdiff_t first = block * c->block, n_left = c->n_channels - first;
      NAME(gather)(c->sources + at * c->n_sources, c->n_sources, n, slabs->in, c->in_channel,
                   n_left < c->block ? n_left : c->block, in + first * c->in_channel, room);
      part.starts = c->starts + block * n_lists;
      part.is_first = block == 0, part.is_last = block == c->n_blocks - 1;
      if (c->width > 1)
        NAME(together)(c, s, &part, out, other);
      else if (n_most * n > VECTORS_OF_HALF / 2)
        NAME(alone)(c, s, &part, VECTORS_OF_HALF, out, other);
      else
        NAME(alone)(c, s, &part, VECTORS_OF_HALF / 2, out, other);
    }
  }
}

/* Winograd's products (Lavin and Gray 2016) for size x size places and 3 x 3 taps: polynomials at
   0, 1, -1 and infinity, or at 0, 0.75, -0.75, 1.5, -1.5 and infinity, which round less than others
   (Barabasz et al. 2020). Three steps along an axis, whose numbers are `by` apart, in place. */
TARGET static inline __attribute__((always_inline)) void NAME(of_inputs)(const int size, VECTOR *x,
                                                                         const int by)
{
  const VECTOR x0 = x[0], x1 = x[by], x2 = x[2 * by], x3 = x[3 * by];
  if (size == 2) {
    x[0] = x0 - x2, x[by] = x1 + x2, x[2 * by] = x2 - x1, x[3 * by] = x1 - x3;
    return;
  }
  const VECTOR x4 = x[4 * by], x5 = x[5 * by];
  const VECTOR even = x4 - x2 * 2.25f, odd = (x3 - x1 * 2.25f) * 0.75f;
  const VECTOR other_even = x4 - x2 * 0.5625f, other_odd = (x3 - x1 * 0.5625f) * 1.5f;
  x[0] = x0 * 1.265625f - x2 * 2.8125f + x4, x[5 * by] = x1 * 1.265625f - x3 * 2.8125f + x5;
  x[by] = even + odd, x[2 * by] = even - odd;
  x[3 * by] = other_even + other_odd, x[4 * by] = other_even - other_odd;
}

TARGET static inline __attribute__((always_inline)) void NAME(of_sums)(const int size, VECTOR *x,
                                                                       const int by)
{
  const VECTOR even = x[by] + x[2 * by], odd = x[by] - x[2 * by];
  if (size == 2) {
    x[0] += even, x[by] = odd - x[3 * by];
    return;
  }
  const VECTOR other_even = x[3 * by] + x[4 * by], other_odd = x[3 * by] - x[4 * by];
  x[0] += even + other_even, x[by] = odd * 0.75f + other_odd * 1.5f;
  x[2 * by] = even * 0.5625f + other_even * 2.25f;
  x[3 * by] = odd * 0.421875f + other_odd * 3.375f + x[5 * by];
}

/* Taps [3] of LANES filters or channels -> [size + 2]. */
TARGET static inline __attribute__((always_inline)) void NAME(of_taps)(const int size, VECTOR g0,
                                                                       VECTOR g1, VECTOR g2,
                                                                       VECTOR *out)
{
  if (size == 2) {
    const VECTOR even = (g0 + g2) * 0.5f, odd = g1 * 0.5f;
    out[0] = g0, out[1] = even + odd, out[2] = even - odd, out[3] = g2;
    return;
  }
  const VECTOR even = g0 * (-128 / 243.0f) - g2 * (8 / 27.0f), odd = g1 * (-32 / 81.0f);
  const VECTOR other_even = g0 * (32 / 243.0f) + g2 * (8 / 27.0f), other_odd = g1 * (16 / 81.0f);
  out[0] = g0 * (64 / 81.0f), out[5] = g2;
  out[1] = even + odd, out[2] = even - odd;
  out[3] = other_even + other_odd, out[4] = other_even - other_odd;
}

/* A kernel (3, 3, in, out) -> [place][FILTERS of out][in][one of FILTERS]. */
TARGET static inline __attribute__((always_inline)) void
NAME(transform)(const int size, const float *from, ptrdiff_t n_in, ptrdiff_t n_out, float *to)
{
  enum { AT_A_TIME = 16, N = AT_A_TIME * FILTERS, MOST = 4 + 2 };
  const int n_taps = size + 2;
  const ptrdiff_t n_lists = (n_out + FILTERS - 1) / FILTERS, of_place = n_in * n_lists * FILTERS;
  float g[9][N] __attribute__((aligned(64))), made[MOST * MOST][N] __attribute__((aligned(64)));
  memset(g, 0, sizeof g);
  for (ptrdiff_t first = 0; first < n_in; first += AT_A_TIME)
    for (ptrdiff_t list = 0; list < n_lists; list++) {
      const ptrdiff_t n = n_in - first < AT_A_TIME ? n_in - first : AT_A_TIME;
      const ptrdiff_t n_left = n_out - list * FILTERS;
      for (int tap = 0; tap < 9; tap++)
        for (ptrdiff_t c = 0; c < n; c++) {
          const float *row = from + (tap * n_in + first + c) * n_out + list * FILTERS;
          for (int f = 0; f < FILTERS; f++)
            g[tap][c * FILTERS + f] = f < n_left ? row[f] : 0;
        }
      for (int e = 0; e < N; e += LANES) {
        VECTOR t[3][MOST], u[MOST];
        UNROLLED for (int q = 0; q < 3; q++)
          NAME(of_taps)(size, *(VECTOR *)(g[q] + e), *(VECTOR *)(g[3 + q] + e),
                        *(VECTOR *)(g[6 + q] + e), t[q]);
        UNROLLED for (int r = 0; r < n_taps; r++) {
          NAME(of_taps)(size, t[0][r], t[1][r], t[2][r], u);
          UNROLLED for (int q = 0; q < n_taps; q++)
            *(VECTOR *)(made[r * n_taps + q] + e) = u[q];
        }
      }
      for (int place = 0; place < n_taps * n_taps; place++)
        memcpy(to + place * of_place + (list * n_in + first) * FILTERS, made[place],
               (size_t)(n * FILTERS) * sizeof *to);
    }
}

TARGET static void NAME(square_weights)(ptrdiff_t size, const float *from, ptrdiff_t n_in,
                                        ptrdiff_t n_out, float *to)
{
  if (size == 2)
    NAME(transform)(2, from, n_in, n_out, to);
  else
    NAME(transform)(4, from, n_in, n_out, to);
}

/* room: of the inputs of some squares of places, transformed, [place][channel][square], and of
   their sums, [place][filter][square]; slabs of each square, one beside the other. */
TARGET static inline __attribute__((always_inline)) void
NAME(squares)(const struct convolution *c, const struct sums *s, const struct slabs *slabs,
              const float *in, float *out, const float *other, float *room, const int size)
{
  enum { MOST = 4 + 2 };
  const int n_taps = size + 2;
  const ptrdiff_t stride = SQUARES_TOGETHER * SLAB;
  const ptrdiff_t n_lists = (c->n_filters + FILTERS - 1) / FILTERS;
  const ptrdiff_t of_in = c->n_channels * stride + SLAB, of_sums = n_lists * FILTERS * stride + SLAB;
  const ptrdiff_t n_all = c->n_squares * slabs->n, row = c->in_row, column = c->in_column;
  float *transformed = room, *sums = room + n_taps * n_taps * of_in;
  for (ptrdiff_t first = 0; first < n_all; first += SQUARES_TOGETHER) {
    const ptrdiff_t n = n_all - first > SQUARES_TOGETHER ? SQUARES_TOGETHER : n_all - first;
    for (ptrdiff_t at = 0; at < n; at++) {
      const struct square *square = &c->squares[(first + at) / slabs->n];
      const float *from = in + square->in + (first + at) % slabs->n * slabs->in;
      float *to = transformed + at * SLAB;
      for (ptrdiff_t channel = 0; channel < c->n_channels; channel++, from += c->in_channel, to += stride)
        for (int e = 0; e < SLAB; e += LANES) {
          VECTOR x[MOST][MOST];
          UNROLLED for (int q = 0; q < n_taps; q++) {
            UNROLLED for (int r = 0; r < n_taps; r++)
              x[r][q] = square->rows >> r & square->columns >> q & 1
                            ? *(const VECTOR *)(from + r * row + q * column + e)
                            : (VECTOR){0};
            NAME(of_inputs)(size, &x[0][q], MOST);
          }
          UNROLLED for (int r = 0; r < n_taps; r++) {
            NAME(of_inputs)(size, x[r], 1);
            UNROLLED for (int q = 0; q < n_taps; q++)
              *(VECTOR *)(to + (r * n_taps + q) * of_in + e) = x[r][q];
          }
        }
    }
    const float *weights = s->values;
    for (int place = 0; place < n_taps * n_taps; place++, weights += c->n_channels * n_lists * FILTERS)
      for (ptrdiff_t part = 0; part < n * SLAB; part += PART)
        for (ptrdiff_t list = 0; list < n_lists; list++) {
          const float *x = transformed + place * of_in + part;
          const float *w = weights + list * c->n_channels * FILTERS;
          VECTOR sum[FILTERS][AT_ONCE] = {0};
          for (ptrdiff_t channel = 0; channel < c->n_channels; channel++, x += stride, w += FILTERS) {
            VECTOR numbers[AT_ONCE];
            for (int v = 0; v < AT_ONCE; v++)
              numbers[v] = *(const VECTOR *)(x + v * LANES);
            for (int f = 0; f < FILTERS; f++) {
              VECTOR weight = w[f] - (VECTOR){0};
              HELD(weight);
              for (int v = 0; v < AT_ONCE; v++)
                sum[f][v] += weight * numbers[v];
            }
          }
          float *to = sums + place * of_sums + list * FILTERS * stride + part;
          for (int f = 0; f < FILTERS; f++)
            for (int v = 0; v < AT_ONCE; v++)
              *(VECTOR *)(to + f * stride + v * LANES) = sum[f][v];
        }
    for (ptrdiff_t at = 0; at < n; at++) {
      const struct square *square = &c->squares[(first + at) / slabs->n];
      const ptrdiff_t slab = (first + at) % slabs->n;
      for (ptrdiff_t filter = 0; filter < c->n_filters; filter++) {
        const float *from = sums + at * SLAB + filter * stride;
        float *to = out + square->out + slab * slabs->out + filter * s->out_channel;
        const float *added = other ? other + square->other + slab * slabs->other +
                                         filter * s->other_channel
                                   : NULL;
        for (int e = 0; e < SLAB; e += LANES) {
          VECTOR y[MOST][MOST];
          UNROLLED for (int q = 0; q < n_taps; q++) {
            UNROLLED for (int r = 0; r < n_taps; r++)
              y[r][q] = *(const VECTOR *)(from + (r * n_taps + q) * of_sums + e);
            NAME(of_sums)(size, &y[0][q], MOST);
          }
          UNROLLED for (int r = 0; r < size; r++) {
            NAME(of_sums)(size, y[r], 1);
            UNROLLED for (int q = 0; q < size; q++)
              if (r < square->n_rows && q < square->n_columns) {
                const float *one =
                    added ? added + r * c->other_row + q * c->other_column + e : NULL;
                *(VECTOR *)(to + r * c->out_row + q * c->out_column + e) = NAME(finished)(
                    y[r][q], s->scale[filter], s->shift[filter], one, s->bounds);
              }
          }
        }
      }
    }
  }
}

TARGET static void NAME(convolve_squares)(const struct convolution *c, const struct sums *s,
                                          const struct slabs *slabs, const float *in, float *out,
                                          const float *other, float *room)
{
  if (c->square_size == 2)
    NAME(squares)(c, s, slabs, in, out, other, room, 2);
  else
    NAME(squares)(c, s, slabs, in, out, other, room, 4);
}

/* exp(x) for -87 <= x <= 88, with an error of some 1e-7 of it: 2**n times a polynomial. */
TARGET static inline __attribute__((always_inline)) VECTOR NAME(exp)(VECTOR x)
{
  const VECTOR shifted = x * 1.44269504f + 0x1.8p23f, n = shifted - 0x1.8p23f;
  const VECTOR r = (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;
  VECTOR sum = r * (1 / 720.0f) + 1 / 120.0f;
  sum = sum * r + 1 / 24.0f;
  sum = sum * r + 1 / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * r * r + r;
  sum += 1.0f;
  return (VECTOR)((INTS)sum + ((INTS)shifted << 23));
}

/* A function of single numbers; NaN stays. Where a difference rounds much, a series is taken. */
TARGET static inline __attribute__((always_inline)) VECTOR NAME(apply)(int function, float alpha,
                                                                       VECTOR x)
{
  const VECTOR zero = {0}, least = -87.0f - zero, most = 88.0f - zero;
  const VECTOR size = (VECTOR)((INTS)x & INT32_MAX), square = x * x;
  VECTOR power = x; /* of e */
  if (function == SIGMOID || function == SWISH)
    power = -x;
  else if (function == TANH || function == SOFTPLUS)
    power = size * (function == TANH ? -2.0f : -1.0f);
  else if (function == GELU)
    power = square * -0.5f;
  else if (function == GELU_TANH)
    power = x * (square * 0.044715f + 1.0f) * -1.59576912f;
  power = CHOSEN(power > least, power, least);
  power = NAME(exp)(CHOSEN(power < most, power, most));
  VECTOR value;
  if (function == SIGMOID || function == SWISH || function == GELU_TANH) {
    value = 1.0f / (1.0f + power);
    if (function != SIGMOID)
      value *= x;
  } else if (function == SOFTPLUS) { /* log(1 + power) = 2 atanh(power / (2 + power)) */
    const VECTOR s = power / (2.0f + power), z = s * s;
    VECTOR sum = z * (1 / 13.0f) + 1 / 11.0f;
    sum = sum * z + 1 / 9.0f;
    sum = sum * z + 1 / 7.0f;
    sum = sum * z + 1 / 5.0f;
    sum = sum * z + 1 / 3.0f;
    sum = sum * z + 1.0f;
    value = 2.0f * s * sum + CHOSEN(x > zero, x, zero);
  } else if (function == TANH) {
    value = (1.0f - power) / (1.0f + power);
    value = (VECTOR)((INTS)value | ((INTS)x & INT32_MIN));
    const VECTOR cubes = square * (square * (-17 / 315.0f) + 2 / 15.0f) - 1 / 3.0f;
    value = CHOSEN(size < 0.1f - zero, x + x * square * cubes, value);
  } else if (function == SOFTSIGN) {
    value = x / (1.0f + size);
  } else if (function == LEAKY_RELU) {
    value = CHOSEN(x > zero, x, x * alpha);
  } else if (function == GELU) { /* 1 - erf(z), z >= 0: Abramowitz and Stegun (1964), 7.1.26 */
    const VECTOR t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * size);
    VECTOR sum = t * 1.061405429f - 1.453152027f;
    sum = sum * t + 1.421413741f;
    sum = sum * t - 0.284496736f;
    sum = (sum * t + 0.254829592f) * t * power;
    value = 0.5f * x * CHOSEN(x > zero, 2.0f - sum, sum);
  } else { /* ELU, SELU */
    const VECTOR near = x + square * (0.5f + x * (1 / 6.0f + x * (1 / 24.0f + x * (1 / 120.0f))));
    value = CHOSEN(size < 0.1f - zero, near, power - 1.0f);
    if (function == SELU)
      value *= 1.67326324f;
    value = CHOSEN(x > zero, x, value);
    if (function == SELU)
      value *= 1.05070099f;
  }
  return CHOSEN(x != x, x, value);
}

/* Each number alone, with another tensor's: of a slab. */
TARGET static void NAME(combine)(const struct elementwise *op, const float *scales,
                                 const float *shifts, float sign, const float *in,
                                 const float *other, float *out)
{
  const struct bounds bounds = op->bounds;
  for (ptrdiff_t channel = 0; channel < op->n_channels; channel++) {
    const float scale = scales[channel], shift = shifts[channel];
    for (ptrdiff_t row = 0; row < op->n_rows; row++) {
      const float *a = in + channel * op->in.channel + row * op->in.row;
      const float *b = other ? other + channel * op->other.channel + row * op->other.row : NULL;
      float *to = out + channel * op->out.channel + row * op->out.row;
      for (ptrdiff_t column = 0; column < op->n_columns; column++)
        for (int e = 0; e < SLAB; e += LANES) {
          VECTOR value = *(const VECTOR *)(a + column * op->in.column + e);
          const float *added = b ? b + column * op->other.column + e : NULL;
          if (added && op->is_pair)
            value += sign * *(const VECTOR *)added;
          value = NAME(finished)(value, scale, shift, op->is_pair ? NULL : added, bounds);
          if (op->function)
            value = NAME(apply)(op->function, op->alpha, value);
          *(VECTOR *)(to + column * op->out.column + e) = value;
        }
    }
  }
}

/* Maxima or means of the places of a window that are inside, of a slab. */
TARGET static void NAME(pool)(const struct pooling *op, const float *in, float *out)
{
  for (ptrdiff_t channel = 0; channel < op->n_channels; channel++)
    for (ptrdiff_t place = 0; place < op->n_places; place++) {
      const int32_t *offsets = op->offsets, start = op->starts[place];
      const int32_t stop = op->starts[place + 1];
      const float *numbers = in + channel * op->in_channel;
      for (int e = 0; e < SLAB; e += LANES) {
        VECTOR value = *(const VECTOR *)(numbers + offsets[start] + e);
        for (int32_t k = start + 1; k < stop; k++) {
          const VECTOR next = *(const VECTOR *)(numbers + offsets[k] + e);
          if (op->is_mean)
            value += next;
          else
            value = CHOSEN((value > next) | (value != value), value, next);
        }
        if (op->is_mean)
          value /= (float)(stop - start);
        *(VECTOR *)(out + channel * op->out_channel + op->places[place] + e) = value;
      }
    }
}

#undef AT_ONCE
#undef PART
#undef VECTOR
#undef HELD
#undef UNROLLED
#undef INTS
#undef CHOSEN
