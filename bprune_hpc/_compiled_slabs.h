/* A graph of layers on slabs of examples; included once for each set of instructions.

   A tensor lies as [slab][channel][row][column][example], with SLAB examples to a slab, so that a
   weight multiplies whole vectors. GROUP_SLABS slabs go through all layers before the next ones do.
   A convolution is a list of offsets, and of weights, for each filter, or for FILTERS of them
   together; a dense layer is one whose window is all of its input. Sums are worked on in tiles of
   BASES places and STEPS steps from each, which are columns of one slab, or slabs. What a place's
   window has outside of the image is left out, by classes of the window's taps that are inside or
   outside together. A sum's terms are added in the order of its lists, whatever tile it is in. */

#define AT_ONCE (LANES == 16 ? 4 : 2) /* vectors that a base's sums are worked on together */
#define PART (LANES * AT_ONCE)        /* numbers */
#define VECTOR NAME(vector)
#define AT(v, step) (PART > SLAB ? (v) * (step) : (v) * LANES)
#define STEP_OF(part, v) (((part) + (v) * LANES) / SLAB)
#define OTHER(base, part, v)                                                                      \
  (other ? other + tile->other[base] + NAME(part_offset)(part, s->other_step) +                   \
               AT(v, s->other_step)                                                               \
         : NULL)
#define INTS NAME(lanes)
#define CHOSEN(mask, yes, no) ((VECTOR)(((INTS)(yes) & (mask)) | ((INTS)(no) & ~(mask))))
#ifdef __x86_64__
#define HELD(value) __asm__("" : "+v"(value)) /* in a register, for many products */
#define REGISTER(value) __asm__("" : "+r"(value))
#else
#define HELD(value) (void)(value)
#define REGISTER(value) (void)(value)
#endif

typedef int32_t INTS __attribute__((vector_size(4 * LANES), may_alias));

static inline __attribute__((always_inline)) ptrdiff_t NAME(part_offset)(int part, ptrdiff_t step)
{
  return part / SLAB * step + part % SLAB;
}

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

#define OF_BASES(mask)                                                                            \
  case mask:                                                                                      \
    for (; k < stop; k++) {                                                                       \
      const float *x = in + offsets[k];                                                           \
      VECTOR value = values[k] - (VECTOR){0};                                                     \
      HELD(value);                                                                                \
      for (int b = 0; b < BASES; b++)                                                             \
        if (mask >> b & 1) {                                                                      \
          const float *of_base = x + bases[b];                                                    \
          REGISTER(of_base);                                                                      \
          for (int v = 0; v < AT_ONCE; v++) {                                                     \
            VECTOR number = *(const VECTOR *)(of_base + (v == 3 ? three : AT(v, step)));          \
            HELD(number);                                                                         \
            sum[b][v] += value * number;                                                          \
          }                                                                                       \
        }                                                                                         \
    }                                                                                             \
    break;

/* One filter in a tile. */
TARGET static inline __attribute__((always_inline)) void
NAME(alone)(const struct sums *s, const ptrdiff_t step, const int n_bases, const int n_steps,
            const struct tile *tile, const struct run *runs, const int32_t *starts,
            const float *in, float *out, const float *other, ptrdiff_t filter)
{
  const int32_t *offsets = s->offsets;
  const float *values = s->values;
  const ptrdiff_t out_step = s->out_step;
  ptrdiff_t three = 3 * step;
  if (step != SLAB)
    REGISTER(three); /* so that a base's places need few of them */
  for (int part = 0; part < SLAB * STEPS && part / SLAB < n_steps; part += PART) {
    const ptrdiff_t at = NAME(part_offset)(part, step), to = NAME(part_offset)(part, out_step);
    const ptrdiff_t bases[BASES] = {tile->in[0] + at, tile->in[1] + at, tile->in[2] + at,
                                    tile->in[3] + at};
    VECTOR sum[BASES][AT_ONCE] = {0};
    if (!s->is_first)
      for (int b = 0; b < BASES; b++)
        for (int v = 0; v < AT_ONCE; v++)
          if (b < n_bases && STEP_OF(part, v) < n_steps)
            sum[b][v] = *(const VECTOR *)(out + tile->out[b] + to + AT(v, out_step));
    for (const struct run *run = runs; run->mask; run++) {
      ptrdiff_t k = starts[run->first];
      const ptrdiff_t stop = starts[run->last];
      switch (run->mask) {
        OF_BASES(1) OF_BASES(2) OF_BASES(3) OF_BASES(4) OF_BASES(5) OF_BASES(6) OF_BASES(7)
        OF_BASES(8) OF_BASES(9) OF_BASES(10) OF_BASES(11) OF_BASES(12) OF_BASES(13) OF_BASES(14)
        OF_BASES(15)
      }
    }
    if (s->is_last)
      for (int b = 0; b < BASES; b++)
        for (int v = 0; v < AT_ONCE; v++)
          if (b < n_bases && STEP_OF(part, v) < n_steps)
            sum[b][v] = NAME(finished)(sum[b][v], s->scale[filter], s->shift[filter],
                                       OTHER(b, part, v), s->bounds);
    for (int b = 0; b < BASES; b++)
      for (int v = 0; v < AT_ONCE; v++)
        if (b < n_bases && STEP_OF(part, v) < n_steps)
          *(VECTOR *)(out + tile->out[b] + to + AT(v, out_step)) = sum[b][v];
  }
}

/* Steps that are next to each other have places that need no registers. */
TARGET static void NAME(alone_near)(const struct sums *s, const struct tile *tile,
                                    const struct run *runs, const int32_t *starts, const float *in,
                                    float *out, const float *other, ptrdiff_t filter)
{
  NAME(alone)(s, SLAB, BASES, STEPS, tile, runs, starts, in, out, other, filter);
}

TARGET static void NAME(alone_far)(const struct sums *s, const struct tile *tile,
                                   const struct run *runs, const int32_t *starts, const float *in,
                                   float *out, const float *other, ptrdiff_t filter)
{
  NAME(alone)(s, s->in_step, tile->n_bases, tile->n_steps, tile, runs, starts, in, out, other,
              filter);
}

/* FILTERS filters, of which n there are, at one base of a tile. */
TARGET static void NAME(together)(const struct sums *s, const struct tile *tile, int base,
                                  const uint8_t *masks, const int32_t *starts, const float *in,
                                  float *out, const float *other, ptrdiff_t filter, ptrdiff_t n)
{
  const int32_t *offsets = s->offsets;
  const ptrdiff_t step = s->in_step, out_step = s->out_step, stride = s->out_channel;
  const int n_steps = tile->n_steps;
  for (int part = 0; part < SLAB * STEPS && part / SLAB < n_steps; part += PART) {
    const float *x_base = in + tile->in[base] + NAME(part_offset)(part, step);
    const ptrdiff_t place = tile->out[base] + NAME(part_offset)(part, out_step);
    VECTOR sum[FILTERS][AT_ONCE] = {0};
    if (!s->is_first)
      for (int f = 0; f < FILTERS; f++)
        for (int v = 0; v < AT_ONCE; v++)
          if (f < n && STEP_OF(part, v) < n_steps)
            sum[f][v] = *(const VECTOR *)(out + place + f * stride + AT(v, out_step));
    for (ptrdiff_t class = 0; class < s->n_classes;) {
      const ptrdiff_t start = starts[class];
      const int is_inside = masks[class] >> base & 1;
      do
        class++;
      while (class < s->n_classes && (masks[class] >> base & 1) == is_inside);
      const ptrdiff_t stop = is_inside ? starts[class] : start;
      const float *weights = s->values + start * FILTERS;
      for (ptrdiff_t k = start; k < stop; k++, weights += FILTERS) {
        const float *x = x_base + offsets[k];
        VECTOR numbers[AT_ONCE];
        for (int v = 0; v < AT_ONCE; v++)
          numbers[v] = *(const VECTOR *)(x + AT(v, step));
        for (int f = 0; f < FILTERS; f++) {
          VECTOR weight = weights[f] - (VECTOR){0};
          HELD(weight);
          for (int v = 0; v < AT_ONCE; v++)
            sum[f][v] += weight * numbers[v];
        }
      }
    }
    for (int f = 0; f < FILTERS; f++) {
      const float scale = s->scale[f < n ? filter + f : filter];
      const float shift = s->shift[f < n ? filter + f : filter];
      for (int v = 0; v < AT_ONCE; v++)
        if (f < n && STEP_OF(part, v) < n_steps) {
          const ptrdiff_t to = place + f * stride + AT(v, out_step);
          if (s->is_last)
            sum[f][v] = NAME(finished)(sum[f][v], scale, shift,
                                       other ? OTHER(base, part, v) + f * s->other_channel : NULL,
                                       s->bounds);
          *(VECTOR *)(out + to) = sum[f][v];
        }
    }
  }
}

/* Ask the caches for a part of the next tile's inputs, a part for each list of this tile. */
static inline __attribute__((always_inline)) void
NAME(ask_for)(const struct convolution *c, const struct tile *next, const float *in, ptrdiff_t list,
              ptrdiff_t n_lists)
{
  const ptrdiff_t last = c->n_channels * (list + 1) / n_lists;
  for (ptrdiff_t channel = c->n_channels * list / n_lists; channel < last; channel++)
    for (int b = 0; b < next->n_bases; b++)
      for (int v = 0; v < STEPS; v++) { /* those in the middle of a window of 3 x 3 taps */
        const ptrdiff_t place = channel * c->in_channel + next->in[b] + c->in_row +
                                v * c->in_step + 2 * c->in_column;
        __builtin_prefetch((const void *)((uintptr_t)in + (uintptr_t)place * sizeof *in));
      }
}

/* All filters of a convolution, in a slab, or in all of a group. */
TARGET static void NAME(convolve)(const struct convolution *c, struct sums s, const float *in,
                                  float *out, const float *other)
{
  const ptrdiff_t n_lists = (c->n_filters + c->width - 1) / c->width;
  for (ptrdiff_t first = 0; first < c->n_tiles; first += c->tiles_at_once)
    for (ptrdiff_t block = 0; block < c->n_blocks; block++) {
      s.is_first = block == 0, s.is_last = block == c->n_blocks - 1;
      for (ptrdiff_t at = first; at < first + c->tiles_at_once && at < c->n_tiles; at++) {
        const struct tile *tile = &c->tiles[at];
        const uint8_t *masks = c->masks + at * s.n_classes;
        struct run runs[MOST_RUNS + 1];
        runs_of(masks, s.n_classes, runs);
        const int is_near =
            s.in_step == SLAB && tile->n_bases == BASES && tile->n_steps == STEPS;
        for (ptrdiff_t list = 0; list < n_lists; list++) {
          if (c->in_step && block == c->n_blocks - 1 && at + 1 < c->n_tiles)
            NAME(ask_for)(c, tile + 1, in, list, n_lists);
          const int32_t *starts = c->starts + (block * n_lists + list) * s.n_classes;
          const ptrdiff_t filter = list * c->width, to = filter * s.out_channel;
          const float *of_other = other ? other + filter * s.other_channel : NULL;
          if (c->width == 1 && is_near)
            NAME(alone_near)(&s, tile, runs, starts, in, out + to, of_other, filter);
          else if (c->width == 1)
            NAME(alone_far)(&s, tile, runs, starts, in, out + to, of_other, filter);
          else
            for (int base = 0; base < tile->n_bases; base++)
              NAME(together)(&s, tile, base, masks, starts, in, out + to, of_other, filter,
                             c->n_filters - filter < FILTERS ? c->n_filters - filter : FILTERS);
        }
      }
    }
}

/* Winograd's products for 2 x 2 places and 3 x 3 taps (Lavin and Gray 2016): 16 for 36.

   room: of the inputs of some squares of places, transformed, [16][channel][square], and of their
   sums, [16][filter][square]; n_slabs of each square, one beside the other. */
TARGET static void NAME(convolve_squares)(const struct convolution *c, const struct sums *s,
                                          const struct slabs *slabs, const float *in, float *out,
                                          const float *other, float *room)
{
  const ptrdiff_t n_at_once = c->tiles_at_once, stride = n_at_once * SLAB;
  const ptrdiff_t n_lists = (c->n_filters + FILTERS - 1) / FILTERS;
  const ptrdiff_t of_in = c->n_channels * stride + SLAB, of_sums = n_lists * FILTERS * stride + SLAB;
  const ptrdiff_t n_all = c->n_squares * slabs->n, row = c->in_row, column = c->in_column;
  float *transformed = room, *sums = room + 16 * of_in;
  for (ptrdiff_t first = 0; first < n_all; first += n_at_once) {
    const ptrdiff_t n = n_all - first > n_at_once ? n_at_once : n_all - first;
    for (ptrdiff_t at = 0; at < n; at++) {
      const struct square *square = &c->squares[(first + at) / slabs->n];
      const float *from = in + square->in + (first + at) % slabs->n * slabs->in;
      float *to = transformed + at * SLAB;
      for (ptrdiff_t channel = 0; channel < c->n_channels; channel++, from += c->in_channel, to += stride)
        for (int e = 0; e < SLAB; e += LANES) {
          VECTOR x[4][4], t[4][4];
          for (int r = 0; r < 4; r++)
            for (int q = 0; q < 4; q++)
              x[r][q] = square->rows >> r & square->columns >> q & 1
                            ? *(const VECTOR *)(from + r * row + q * column + e)
                            : (VECTOR){0};
          for (int q = 0; q < 4; q++) {
            t[0][q] = x[0][q] - x[2][q], t[1][q] = x[1][q] + x[2][q];
            t[2][q] = x[2][q] - x[1][q], t[3][q] = x[1][q] - x[3][q];
          }
          for (int r = 0; r < 4; r++) {
            float *of_row = to + 4 * r * of_in + e;
            *(VECTOR *)of_row = t[r][0] - t[r][2];
            *(VECTOR *)(of_row + of_in) = t[r][1] + t[r][2];
            *(VECTOR *)(of_row + 2 * of_in) = t[r][2] - t[r][1];
            *(VECTOR *)(of_row + 3 * of_in) = t[r][1] - t[r][3];
          }
        }
    }
    const float *weights = s->values;
    for (int place = 0; place < 16; place++, weights += c->n_channels * n_lists * FILTERS)
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
          VECTOR t[2][4], y[2][2];
          for (int q = 0; q < 4; q++) {
            const VECTOR a = *(const VECTOR *)(from + q * of_sums + e);
            const VECTOR b = *(const VECTOR *)(from + (4 + q) * of_sums + e);
            const VECTOR d = *(const VECTOR *)(from + (8 + q) * of_sums + e);
            t[0][q] = a + b + d;
            t[1][q] = b - d - *(const VECTOR *)(from + (12 + q) * of_sums + e);
          }
          for (int r = 0; r < 2; r++) {
            y[r][0] = t[r][0] + t[r][1] + t[r][2];
            y[r][1] = t[r][1] - t[r][2] - t[r][3];
            for (int q = 0; q < 2; q++)
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
#undef AT
#undef STEP_OF
#undef OTHER
#undef HELD
#undef REGISTER
#undef INTS
#undef CHOSEN
#undef OF_BASES
