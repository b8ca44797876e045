/* Dense layers with noise of its own for each example; included after _compiled_forward.h.

   A unit of a layer is Normal given the layer's inputs: its mean is their product with `loc`, its
   variance that of their squares with `scale` squared, and units are independent of one another. */

/* What the units of a layer are in a draw, from mean and variance, or deviation, of each. */
TARGET static void NAME(draw_units)(ptrdiff_t n_units, const float *mean, const float *spread,
                                    int is_variance, const float *normals, float sign,
                                    struct bounds bounds, float *out)
{
  const int is_drawn = spread && sign != 0;
  for (ptrdiff_t at = 0; at < n_units * TILE; at++) {
    float value = mean[at];
    if (is_drawn) {
      const float deviation = is_variance ? __builtin_sqrtf(spread[at]) : spread[at];
      value += sign * (deviation * normals[at]);
    }
    out[at] = bounds.low > value ? bounds.low : bounds.high < value ? bounds.high : value;
  }
}

TARGET static void NAME(square)(ptrdiff_t n_units, const float *values, float *out)
{
  for (ptrdiff_t at = 0; at < n_units * TILE; at++)
    out[at] = values[at] * values[at];
}

/* One tile in the draws of a noise, into out[draw][output][example].

   means, deviations: of the first layer's units, which are the same in every draw. */
TARGET static void NAME(forward_local)(const struct local *layers, ptrdiff_t n_layers,
                                       const struct draws *draws, uint32_t replicate,
                                       uint32_t position, const float *means,
                                       const float *deviations, float *scratch, float *out,
                                       ptrdiff_t out_columns)
{
  const ptrdiff_t most = most_local_units(layers, n_layers) * TILE;
  float *values = scratch, *squares = values + most, *mean = squares + most;
  float *variance = mean + most, *normals = variance + most;
  float *of_layer = normals;
  for (ptrdiff_t at = 0; at < n_layers; at++) {
    const struct local *layer = &layers[at];
    if (layer->key)
      NAME(tile_normals)(layer->key, replicate, position, layer->places, layer->mean.n_out,
                         of_layer, TILE, TILE);
    of_layer += layer->mean.n_out * TILE;
  }
  const ptrdiff_t n_out = layers[n_layers - 1].mean.n_out;
  for (ptrdiff_t draw = 0; draw < draws->n; draw++) {
    const float sign = draws->sign[draw];
    of_layer = normals;
    for (ptrdiff_t at = 0; at < n_layers; at++) {
      const struct local *layer = &layers[at];
      const float *center = at ? mean : means;
      const float *spread = !layer->key ? NULL : at ? variance : deviations;
      if (at) {
        NAME(run_layer)(&layer->mean, 0, values, mean);
        if (spread && sign != 0) {
          NAME(square)(layer->mean.n_in, values, squares);
          NAME(run_layer)(&layer->variance, 0, squares, variance);
        }
      }
      NAME(draw_units)(layer->mean.n_out, center, spread, at > 0, of_layer, sign, layer->bounds,
                       values);
      of_layer += layer->mean.n_out * TILE;
    }
    put_out(values, n_out, out + draw * n_out * out_columns, out_columns);
  }
}
