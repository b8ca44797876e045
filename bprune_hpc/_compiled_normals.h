/* Standard normals by their places; included once for each set of instructions, see
   _compiled_forward.h. What they are is told in bprune_hpc/posterior/normals.py, whose plain form
   has the same bits: each operation is rounded by itself, so none may be fused with another. */

#ifndef ROUND
#define ROTATED(x, by) ((x) << (by) | (x) >> (32 - (by)))
#define MIX(a, b, by) a += b, b = ROTATED(b, by) ^ a
#define ROUND(a, b, c, d, first, second) MIX(a, b, first), MIX(c, d, second)
#define ADD_KEY(a, b, c, d, number)                                                                \
  x0 += key[a], x1 += key[b], x2 += key[c], x3 += key[d] + number
#endif

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

/* Threefry-4x32 of 13 rounds (Salmon et al. 2011): words[0..3][lane]. */
TARGET static void NAME(threefry)(const uint32_t *key, const uint32_t *position,
                                  const uint32_t *fours, uint32_t replicate, uint32_t *words)
{
  for (int lane = 0; lane < TILE; lane++) {
    uint32_t x0 = position[lane] + key[0], x1 = fours[lane] + key[1];
    uint32_t x2 = replicate + key[2], x3 = key[3];
    ROUND(x0, x1, x2, x3, 10, 26), ROUND(x0, x3, x2, x1, 11, 21);
    ROUND(x0, x1, x2, x3, 13, 27), ROUND(x0, x3, x2, x1, 23, 5);
    ADD_KEY(1, 2, 3, 4, 1);
    ROUND(x0, x1, x2, x3, 6, 20), ROUND(x0, x3, x2, x1, 17, 11);
    ROUND(x0, x1, x2, x3, 25, 10), ROUND(x0, x3, x2, x1, 18, 20);
    ADD_KEY(2, 3, 4, 0, 2);
    ROUND(x0, x1, x2, x3, 10, 26), ROUND(x0, x3, x2, x1, 11, 21);
    ROUND(x0, x1, x2, x3, 13, 27), ROUND(x0, x3, x2, x1, 23, 5);
    ADD_KEY(3, 4, 0, 1, 3);
    ROUND(x0, x1, x2, x3, 6, 20);
    words[lane] = x0, words[TILE + lane] = x1;
    words[2 * TILE + lane] = x2, words[3 * TILE + lane] = x3;
  }
}

/* Two normals of each lane, by Box and Muller (1958): out[0..1][lane]. */
TARGET static void NAME(box_muller)(const uint32_t *words, float *out)
{
  for (int lane = 0; lane < TILE; lane++) {
    const uint32_t first = words[lane];
    const float uniform = (float)(int32_t)(first >> 1) + 0.5f;
    int32_t bits;
    memcpy(&bits, &uniform, sizeof bits);
    const int32_t power = (bits - 0x3f3504f3) >> 23;
    bits -= (int32_t)((uint32_t)power << 23);
    float t;
    memcpy(&t, &bits, sizeof t);
    t -= 1.0f;
    float tail = 0.0870044902f;
    tail = tail * t + -0.142674863f;
    tail = tail * t + 0.14914763f;
    tail = tail * t + -0.16577585f;
    tail = tail * t + 0.199630648f;
    tail = tail * t + -0.250013381f;
    tail = tail * t + 0.333339095f;
    const float square = t * t;
    const float logarithm = (tail * square * t + square * -0.5f) + t;
    const float twice = (float)(31 - power) * 1.38629436f + logarithm * -2.0f;
    float radius = __builtin_sqrtf(twice);
    uint32_t signed_radius;
    memcpy(&signed_radius, &radius, sizeof radius);
    signed_radius |= first << 31;
    memcpy(&radius, &signed_radius, sizeof radius);
    const float angle = (float)(int32_t)words[TILE + lane] * 0x1p-31f;
    const float y = angle * angle;
    float sine = 0.000151485132f;
    sine = sine * y + -0.00467376644f;
    sine = sine * y + 0.0796896815f;
    sine = sine * y + -0.645963728f;
    sine = sine * y + 1.57079637f;
    float cosine = -2.38249177e-05f;
    cosine = cosine * y + 0.000917724857f;
    cosine = cosine * y + -0.0208626892f;
    cosine = cosine * y + 0.253669322f;
    cosine = cosine * y + -1.23370051f;
    cosine = cosine * y + 1.0f;
    out[lane] = radius * cosine;
    out[TILE + lane] = radius * (sine * angle);
  }
}

#ifndef __clang__
#pragma GCC pop_options
#endif

/* Of the four places of each lane: normals[0..3][lane]. */
TARGET static void NAME(four_normals)(const uint32_t *key, const uint32_t *position,
                                      const uint32_t *fours, uint32_t replicate, float *normals)
{
  uint32_t words[4 * TILE] __attribute__((aligned(64)));
  NAME(threefry)(key, position, fours, replicate, words);
  NAME(box_muller)(words, normals);
  NAME(box_muller)(words + 2 * TILE, normals + 2 * TILE);
}

/* Of some places at a tile's positions: out[place][position], in rows of so many numbers. */
TARGET static void NAME(tile_normals)(const uint32_t *key, uint32_t replicate, uint32_t first,
                                      const int32_t *places, ptrdiff_t n_places, float *out,
                                      ptrdiff_t stride, int n_positions)
{
  uint32_t position[TILE], fours[TILE];
  float normals[4 * TILE] __attribute__((aligned(64)));
  int32_t made = -1;
  for (int lane = 0; lane < TILE; lane++)
    position[lane] = first + (uint32_t)lane;
  for (ptrdiff_t k = 0; k < n_places; k++) {
    if (places[k] / 4 != made) {
      made = places[k] / 4;
      for (int lane = 0; lane < TILE; lane++)
        fours[lane] = (uint32_t)made;
      NAME(four_normals)(key, position, fours, replicate, normals);
    }
    memcpy(out + k * stride, normals + places[k] % 4 * TILE, (size_t)n_positions * sizeof(float));
  }
}
