/* A chain of layers on tiles of examples; included once for each set of instructions.

     NAME(x)    the name that a function or type has in this set
     TARGET     the attribute that asks the compiler for these instructions
     LANES      numbers of a vector
     VECTORS    vectors of examples that are worked on together, for up to 4 columns
     FEWER_VECTORS    the same for more columns

   Sums of some columns with so many vectors each stay in registers, while the numbers of an input
   are read once for all columns. Weights are read once from end to end: they are asked for
   beforehand, since processors that do so by themselves stop at each page's end. With short vectors
   that costs more than it brings, as they go over the weights again and again. */

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* NaN stays. */
#define CLAMPED(value, bounds)                                                                     \
  ((bounds).low > (value) ? (bounds).low : (bounds).high < (value) ? (bounds).high : (value))

/* What some rows give, at n vectors of examples, is added to the bias, or to what there is. */
#define DEFINE_SUM(COLUMNS, MOST)                                                                  \
  TARGET static inline __attribute__((always_inline)) void NAME(sum##COLUMNS)(                     \
      const int n, const float *inputs, const int32_t *rows, ptrdiff_t n_rows,                     \
      const float *values, const float *bias, float *sums)                                         \
  {                                                                                                \
    NAME(vector) sum[COLUMNS][MOST] = {0};                                                         \
    for (ptrdiff_t k = 0; k < n_rows; k++) {                                                       \
      const NAME(vector) *row = (const NAME(vector) *)(inputs + rows[k]);                          \
      NAME(vector) x[MOST];                                                                        \
      if (LANES >= 8)                                                                              \
        __builtin_prefetch((const void *)((uintptr_t)(values + k * COLUMNS) + AHEAD * COLUMNS));   \
      for (int v = 0; v < n; v++)                                                                  \
        x[v] = row[v];                                                                             \
      for (int column = 0; column < COLUMNS; column++)                                             \
        for (int v = 0; v < n; v++)                                                                \
          sum[column][v] += values[k * COLUMNS + column] * x[v];                                   \
    }                                                                                              \
    for (int column = 0; column < COLUMNS; column++) {                                             \
      NAME(vector) *out = (NAME(vector) *)(sums + column * TILE);                                  \
      for (int v = 0; v < n; v++)                                                                  \
        if (bias)                                                                                  \
          out[v] = sum[column][v] + bias[column];                                                  \
        else                                                                                       \
          out[v] += sum[column][v];                                                                \
    }                                                                                              \
  }

/* sums[column][example] = within(bias[column] + values[k][column] * inputs[rows[k]][example])

   summed over k. Without a bias what is there is added to; without bounds nothing is cut off. */
#define DEFINE_PRODUCT(COLUMNS, MOST)                                                              \
  TARGET static void NAME(product##COLUMNS)(const float *inputs, const int32_t *rows,              \
                                            ptrdiff_t n_rows, const float *values,                 \
                                            const float *bias, const struct bounds *bounds,        \
                                            float *sums)                                           \
  {                                                                                                \
    ptrdiff_t first = 0;                                                                           \
    do {                                                                                           \
      const ptrdiff_t n = n_rows - first > MOST_TERMS ? MOST_TERMS : n_rows - first;               \
      const float *some = values + first * COLUMNS;                                                \
      int at = 0;                                                                                  \
      for (; at <= TILE - LANES * MOST; at += LANES * MOST)                                        \
        NAME(sum##COLUMNS)(MOST, inputs + at, rows + first, n, some, bias, sums + at);             \
      if (at < TILE)                                                                               \
        NAME(sum##COLUMNS)(TILE / LANES % MOST, inputs + at, rows + first, n, some, bias,          \
                           sums + at);                                                             \
      first += n;                                                                                  \
      bias = NULL;                                                                                 \
    } while (first < n_rows);                                                                      \
    for (int i = 0; bounds && i < COLUMNS * TILE; i++)                                             \
      sums[i] = CLAMPED(sums[i], *bounds);                                                         \
  }

#define DEFINE(COLUMNS, MOST)                                                                      \
  DEFINE_SUM(COLUMNS, MOST)                                                                        \
  DEFINE_PRODUCT(COLUMNS, MOST)
DEFINE(1, VECTORS)
DEFINE(2, VECTORS)
DEFINE(3, VECTORS)
DEFINE(4, VECTORS)
DEFINE(5, FEWER_VECTORS)
DEFINE(6, FEWER_VECTORS)
#undef DEFINE
#undef DEFINE_PRODUCT
#undef DEFINE_SUM

/* A column's terms are added in the same order, whatever columns are beside it. */
static void (*const NAME(products)[])(const float *, const int32_t *, ptrdiff_t, const float *,
                                      const float *, const struct bounds *, float *) = {
    NULL,           NAME(product1), NAME(product2), NAME(product3),
    NAME(product4), NAME(product5), NAME(product6),
};

/* Units first..last of the first layer in every draw: out[draw][unit - first][example].

   means: of all its units in these examples; NULL where they are the products' first column. */
TARGET static void NAME(first_units)(const struct first *layer, const float *tile,
                                     const float *means, const struct draws *draws,
                                     ptrdiff_t first, ptrdiff_t last, float *out)
{
  float sums[SHARED * TILE] __attribute__((aligned(64)));
  const ptrdiff_t stride = (last - first) * TILE, n_columns = layer->n_columns;
  const struct bounds bounds = layer->bounds;
  for (ptrdiff_t unit = first; unit < last; unit++) {
    const ptrdiff_t filter = unit % layer->n_filters, position = unit / layer->n_filters;
    const ptrdiff_t start = layer->starts[filter], n_rows = layer->starts[filter + 1] - start;
    const int32_t *rows = layer->rows + start;
    const float *values = layer->values + start * n_columns;
    const float *bias = layer->bias + filter * n_columns;
    for (ptrdiff_t place = 0; place < layer->n_places; place++) {
      const float *seen = tile + layer->bases[position * layer->n_places + place];
      const int is_last = place == layer->n_places - 1;
      if (n_columns)
        NAME(products)[n_columns](seen, rows, n_rows, values, bias, NULL, sums);
      const float *mean = means ? means + unit * TILE : sums;
      for (ptrdiff_t draw = 0; draw < draws->n; draw++) {
        /* A draw without noise is the mean, whatever a noise makes of it. */
        const int has_noise = draws->column[draw] >= 0;
        const float *spread = has_noise ? sums + draws->column[draw] * TILE : mean;
        const float sign = has_noise ? draws->sign[draw] : 0;
        float *restrict value = out + draw * stride + (unit - first) * TILE;
        if (layer->n_places == 1 && has_noise)
          for (int e = 0; e < TILE; e++) {
            const float sum = mean[e] + sign * spread[e];
            value[e] = CLAMPED(sum, bounds);
          }
        else
          for (int e = 0; e < TILE; e++) {
            const float sum = has_noise ? mean[e] + sign * spread[e] : mean[e];
            const float larger = place && !(value[e] < sum || sum != sum) ? value[e] : sum;
            value[e] = is_last ? CLAMPED(larger, bounds) : larger;
          }
      }
    }
  }
}

/* What some inputs, a block of them, add to the units of a layer in a draw. */
TARGET static void NAME(add_block)(const struct layer *layer, ptrdiff_t draw, ptrdiff_t block,
                                   const float *inputs, float *sums)
{
  const ptrdiff_t n_groups = padded(layer) / layer->width;
  const float *values = layer->values + draw * layer->n_values;
  const float *bias = block ? NULL : layer->bias + draw * padded(layer);
  const struct bounds *bounds = (block + 1) * BLOCK < layer->n_in ? NULL : &layer->bounds;
  for (ptrdiff_t group = 0; group < n_groups; group++) {
    const ptrdiff_t start = layer->starts[block * n_groups + group];
    const ptrdiff_t n_rows = layer->starts[block * n_groups + group + 1] - start;
    const int32_t *rows = layer->rows + start;
    float *out = sums + group * layer->width * TILE;
    if (layer->width == 1)
      NAME(product1)(inputs, rows, n_rows, values + start, bias ? bias + group : NULL, bounds,
                     out);
    else
      NAME(product4)(inputs, rows, n_rows, values + start * GROUP,
                     bias ? bias + group * GROUP : NULL, bounds, out);
  }
}

/* A layer in a draw, from all of its inputs. A layer without any still has its bias. */
TARGET static void NAME(run_layer)(const struct layer *layer, ptrdiff_t draw, const float *inputs,
                                   float *out)
{
  for (ptrdiff_t block = 0; block < n_blocks(layer); block++)
    NAME(add_block)(layer, draw, block, inputs + block * BLOCK * TILE, out);
}

/* One tile in all draws of a stack, into out[draw][output][example]. */
TARGET static void NAME(forward)(const struct first *first, const struct layer *layers,
                                 ptrdiff_t n_layers, const struct draws *draws, const float *tile,
                                 const float *means, float *scratch, float *out,
                                 ptrdiff_t out_columns)
{
  const ptrdiff_t n_units = first->n_filters * first->n_positions;
  const ptrdiff_t n_sums = n_layers ? padded(&layers[0]) * TILE : 0;
  float *made = scratch, *sums = made + draws->n * BLOCK * TILE;
  float *room[2] = {sums + draws->n * n_sums};
  room[1] = room[0] + most_units(layers, n_layers) * TILE;

  for (ptrdiff_t block = 0; block * BLOCK < n_units || (n_layers && !block); block++) {
    const ptrdiff_t start = block * BLOCK;
    const ptrdiff_t stop = n_units - start > BLOCK ? start + BLOCK : n_units;
    NAME(first_units)(first, tile, means, draws, start, stop, made);
    for (ptrdiff_t draw = 0; draw < draws->n; draw++) {
      const float *values = made + draw * (stop - start) * TILE;
      if (n_layers)
        NAME(add_block)(&layers[0], draw, block, values, sums + draw * n_sums);
      else
        put_out(values, stop - start, out + (draw * n_units + start) * out_columns, out_columns);
    }
  }
  for (ptrdiff_t draw = 0; n_layers && draw < draws->n; draw++) {
    const float *values = sums + draw * n_sums;
    for (ptrdiff_t at = 1; at < n_layers; at++) {
      NAME(run_layer)(&layers[at], draw, values, room[at % 2]);
      values = room[at % 2];
    }
    const ptrdiff_t n_out = layers[n_layers - 1].n_out;
    put_out(values, n_out, out + draw * n_out * out_columns, out_columns);
  }
}

#undef CLAMPED
