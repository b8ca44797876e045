/* Compiled counterparts of what `bprune_hpc.compiled` describes. Knows no NumPy: its arguments are
   buffers, whose sizes it checks and whose types it trusts. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "NaN has to be seen, and sums are exact: not with -ffast-math"
#endif

#define TILE 64        /* examples of a tile */
#define BLOCK 256      /* inputs of a layer whose values are made, and used, together */
#define MOST_TERMS 256 /* that are added one after the other; a longer sum would be rounded more */
#define GROUP 4        /* units that share their inputs */
#define SHARED 6       /* most columns, the mean and noises, that share a first layer's inputs */
#define AHEAD 1024     /* bytes of weights, per column, that are asked of the caches beforehand */
#define MOST_DRAWS 16
#define EXAMPLES 16

#define SLAB 16       /* examples side by side in a graph of layers */
#define GROUP_SLABS 4 /* slabs that go through all layers together */
#define VECTORS_OF_HALF 8 /* a tile's slabs and columns; its halves are rows, or columns too */
#define FILTERS 6         /* that share a list of offsets */
#define SQUARES_TOGETHER 4 /* of Winograd's places that are worked on together */
enum { TANH = 1, SIGMOID, ELU, SOFTPLUS, SELU, SWISH, SOFTSIGN, GELU, GELU_TANH, LEAKY_RELU };

#define SIX 6.0
#define SIX_BITS 0x4018000000000000
#define ONE 0x1p50
#define ENTROPY_UNIT 0x1p-4 /* 2**46 units of 2**-50 */
#define NLL_SHIFT 0x1.8p22
#define MAX_NLL 103.97207708399179 /* 150 log(2) */

/* An activation: what lies outside is moved to the next of them. */
struct bounds {
  float low, high;
};

struct first {
  const int32_t *starts, *rows, *bases;
  const float *values, *bias;
  ptrdiff_t n_filters, n_positions, n_places, n_columns;
  struct bounds bounds;
};

struct layer {
  const int32_t *starts, *rows;
  const float *values, *bias;
  ptrdiff_t n_in, n_out, width, n_values;
  struct bounds bounds;
};

/* A layer whose units are drawn: products with the mean, and of squares with variances. */
struct local {
  struct layer mean, variance;
  const uint32_t *key; /* NULL where nothing varies */
  const int32_t *places;
  struct bounds bounds;
};

struct draws {
  ptrdiff_t n;
  int column[MOST_DRAWS]; /* of the first layer's products; -1 for the mean */
  float sign[MOST_DRAWS];
};

/* Places of a convolution's sums that are worked on together: columns of each half, and where. */
struct tile {
  int32_t out[2], other[2], n_columns[2];
};

/* What sums of a draw have in common. */
struct sums {
  const float *values, *scale, *shift;
  ptrdiff_t out_channel, other_channel;
  struct bounds bounds;
};

/* A tile's sums in a block of inputs: these are near, and so are sums that are not the last ones.

   out, other: of each vector, from a filter's place; of those that there are, one bit each. */
struct part {
  const float *near;
  const int32_t *starts;
  float *sums;
  ptrdiff_t out[2 * VECTORS_OF_HALF], other[2 * VECTORS_OF_HALF];
  int32_t is_used;
  int is_first, is_last;
};

/* Some rows and columns of places, the taps of which see two more, one bit each. */
struct square {
  int32_t in, out, other, rows, columns, n_rows, n_columns;
};

/* Slabs that are worked on together, and strides of slabs and of columns. */
struct slabs {
  ptrdiff_t n, in, out, other, out_column, other_column;
};

struct convolution {
  const struct square *squares; /* NULL, if it has lists */
  ptrdiff_t n_squares, room, n_channels;
  ptrdiff_t in_channel, in_row, in_column, out_row, out_column, other_row, other_column;
  const struct tile *tiles;
  const int32_t *sources; /* of each tile, where the vectors are that its windows see; or -1 */
  const int32_t *starts, *offsets;
  const float *values, *scale, *shift;
  ptrdiff_t width, block, n_blocks, n_filters, n_tiles, n_sources, n_values;
  ptrdiff_t half;       /* from a tile's first half to its second one, in what it sees */
  ptrdiff_t n_together; /* slabs of a tile */
  ptrdiff_t square_size; /* rows and columns of a square's places: 2 or 4 */
  struct bounds bounds;
};

struct strides {
  ptrdiff_t channel, row, column;
};

struct elementwise {
  const float *scale, *shift;
  struct strides in, other, out;
  ptrdiff_t n_channels, n_rows, n_columns;
  int is_pair, function; /* is_pair: the mean's and a noise's sums */
  float alpha;           /* of LEAKY_RELU */
  struct bounds bounds;
};

struct pooling {
  const int32_t *starts, *offsets, *places;
  ptrdiff_t n_channels, in_channel, out_channel, n_places;
  int is_mean;
};

static ptrdiff_t padded(const struct layer *layer)
{
  return (layer->n_out + layer->width - 1) / layer->width * layer->width;
}

/* One, where a layer has no inputs: it still has its bias. */
static ptrdiff_t n_blocks(const struct layer *layer)
{
  return layer->n_in > BLOCK ? (layer->n_in + BLOCK - 1) / BLOCK : 1;
}

static ptrdiff_t most_units(const struct layer *layers, ptrdiff_t n_layers)
{
  ptrdiff_t most = 0;
  for (ptrdiff_t at = 1; at < n_layers; at++)
    most = padded(&layers[at]) > most ? padded(&layers[at]) : most;
  return most;
}

static ptrdiff_t most_local_units(const struct local *layers, ptrdiff_t n_layers)
{
  ptrdiff_t most = 0;
  for (ptrdiff_t at = 0; at < n_layers; at++)
    most = padded(&layers[at].mean) > most ? padded(&layers[at].mean) : most;
  for (ptrdiff_t at = 1; at < n_layers; at++)
    if (layers[at].key)
      most = padded(&layers[at].variance) > most ? padded(&layers[at].variance) : most;
  return most;
}

static void put_out(const float *values, ptrdiff_t n_units, float *out, ptrdiff_t out_columns)
{
  for (ptrdiff_t unit = 0; unit < n_units; unit++)
    memcpy(out + unit * out_columns, values + unit * TILE, TILE * sizeof(float));
}

static int64_t bits_of(double number)
{
  int64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

#define JOIN(a, b) a##_##b
#define JOINED(a, b) JOIN(a, b)
#define NAME(x) JOINED(x, SET)

#define SET plain
#define TARGET
#define LANES 4
#define VECTORS 2
#define FEWER_VECTORS 2
#include "_compiled_classes.h"
#include "_compiled_forward.h"
#include "_compiled_normals.h"
#include "_compiled_local.h"
#include "_compiled_slabs.h"
#undef SET
#undef TARGET
#undef LANES
#undef VECTORS
#undef FEWER_VECTORS

#ifdef __x86_64__
#define SET avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define VECTORS 3
#define FEWER_VECTORS 2
#include "_compiled_classes.h"
#include "_compiled_forward.h"
#include "_compiled_normals.h"
#include "_compiled_local.h"
#include "_compiled_slabs.h"
#undef SET
#undef TARGET
#undef LANES
#undef VECTORS
#undef FEWER_VECTORS

#define SET avx512
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define LANES 16
#define VECTORS 4
#define FEWER_VECTORS 4
#include "_compiled_classes.h"
#include "_compiled_forward.h"
#include "_compiled_normals.h"
#include "_compiled_local.h"
#include "_compiled_slabs.h"
#undef SET
#undef TARGET
#undef LANES
#undef VECTORS
#undef FEWER_VECTORS
#endif

struct set {
  const char *name;
  void (*forward)(const struct first *, const struct layer *, ptrdiff_t, const struct draws *,
                  const float *, const float *, float *, float *, ptrdiff_t);
  void (*run_layer)(const struct layer *, ptrdiff_t, const float *, float *);
  void (*forward_local)(const struct local *, ptrdiff_t, const struct draws *, uint32_t, uint32_t,
                        const float *, const float *, float *, float *, ptrdiff_t);
  void (*four_normals)(const uint32_t *, const uint32_t *, const uint32_t *, uint32_t, float *);
  void (*tile_normals)(const uint32_t *, uint32_t, uint32_t, const int32_t *, ptrdiff_t, float *,
                       ptrdiff_t, int);
  void (*add_classes)(const float *, ptrdiff_t, ptrdiff_t, const int32_t *, int, double *,
                      int64_t *, ptrdiff_t, int64_t *, int64_t *);
  void (*convolve)(const struct convolution *, const struct sums *, const struct slabs *,
                   const float *, float *, const float *, float *);
  void (*convolve_squares)(const struct convolution *, const struct sums *, const struct slabs *,
                           const float *, float *, const float *, float *);
  void (*square_weights)(ptrdiff_t, const float *, ptrdiff_t, ptrdiff_t, float *);
  void (*combine)(const struct elementwise *, const float *, const float *, float, const float *,
                  const float *, float *);
  void (*pool)(const struct pooling *, const float *, float *);
};

#define SET_OF(set)                                                                               \
  {                                                                                               \
    #set, forward_##set, run_layer_##set, forward_local_##set, four_normals_##set,                \
        tile_normals_##set, add_classes_##set, convolve_##set, convolve_squares_##set,            \
        square_weights_##set, combine_##set, pool_##set                                           \
  }
static const struct set sets[] = {
#ifdef __x86_64__
    SET_OF(avx512),
    SET_OF(avx2),
#endif
    SET_OF(plain),
};
#define N_SETS (int)(sizeof sets / sizeof *sets)

static int is_supported(int at)
{
#ifdef __x86_64__
  if (at == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
  if (at == 1)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return at == N_SETS - 1;
}

/* Buffers that a call has taken; all of them are given back in one place. */
#define MOST_LAYERS 60
#define MOST_BUFFERS 2048
struct buffers {
  int n;
  Py_buffer taken[MOST_BUFFERS];
};

/* A product of sizes; -1 if one of them is negative, or it is too large for any array. */
static ptrdiff_t times(ptrdiff_t a, ptrdiff_t b)
{
  ptrdiff_t product;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) || product > PTRDIFF_MAX / 16)
    return -1;
  return product;
}

static ptrdiff_t plus(ptrdiff_t a, ptrdiff_t b)
{
  return a < 0 || b < 0 || a > PTRDIFF_MAX / 16 - b ? -1 : a + b;
}

/* Numbers of an array, at least so many; NULL and an error if there are less, or others. */
static void *numbers_of(struct buffers *buffers, PyObject *object, char type, int is_written,
                        ptrdiff_t least)
{
  if (buffers->n == MOST_BUFFERS) {
    PyErr_SetString(PyExc_ValueError, "too many arrays");
    return NULL;
  }
  Py_buffer *buffer = &buffers->taken[buffers->n];
  const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (is_written ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object, buffer, flags))
    return NULL;
  buffers->n++;
  const char *format = buffer->format ? buffer->format : "B";
  if (format[0] != type || format[1]) {
    PyErr_Format(PyExc_ValueError, "an array of type %s, not %c", format, type);
    return NULL;
  }
  const Py_ssize_t n = buffer->len / buffer->itemsize;
  if (least < 0 || n < least) {
    PyErr_Format(PyExc_ValueError, "an array of %zd numbers, not %zd", n, (Py_ssize_t)least);
    return NULL;
  }
  return buffer->buf;
}

/* How many there are in the array that was taken last. */
static ptrdiff_t n_taken(const struct buffers *buffers)
{
  const Py_buffer *last = &buffers->taken[buffers->n - 1];
  return last->len / last->itemsize;
}

static void give_back(struct buffers *buffers)
{
  while (buffers->n)
    PyBuffer_Release(&buffers->taken[--buffers->n]);
}

static PyObject *supported_sets(PyObject *self, PyObject *unused)
{
  PyObject *names = PyList_New(0);
  for (int at = 0; names && at < N_SETS; at++)
    if (is_supported(at)) {
      PyObject *name = PyUnicode_FromString(sets[at].name);
      if (!name || PyList_Append(names, name))
        Py_CLEAR(names);
      Py_XDECREF(name);
    }
  return names;
}

static const struct set *set_of(const char *name)
{
  for (int at = 0; at < N_SETS; at++)
    if (!strcmp(sets[at].name, name) && is_supported(at))
      return &sets[at];
  PyErr_Format(PyExc_ValueError, "no set of instructions %s", name);
  return NULL;
}

/* rows of examples -> tiles first_tile..last_tile: tiles[tile][row][example].

   Each row has one of the numbers of an example, by its column; -1 for zeros. */
static PyObject *fill_tiles(PyObject *self, PyObject *args)
{
  PyObject *x_object, *columns_object, *out_object;
  Py_ssize_t n_examples, n_columns, first_tile, last_tile;
  if (!PyArg_ParseTuple(args, "OnnOOnn", &x_object, &n_examples, &n_columns, &columns_object,
                        &out_object, &first_tile, &last_tile))
    return NULL;
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL;
  const float *x = numbers_of(&buffers, x_object, 'f', 0, times(n_examples, n_columns));
  const int32_t *columns = x ? numbers_of(&buffers, columns_object, 'i', 0, 0) : NULL;
  const ptrdiff_t n_rows = columns ? n_taken(&buffers) : 0;
  const ptrdiff_t n_numbers = times(last_tile, n_rows * TILE);
  float *out = columns ? numbers_of(&buffers, out_object, 'f', 1, n_numbers) : NULL;
  if (!out)
    goto end;
  int are_columns = first_tile >= 0;
  for (ptrdiff_t row = 0; row < n_rows; row++)
    are_columns &= columns[row] >= -1 && columns[row] < n_columns;
  if (!are_columns) {
    PyErr_SetString(PyExc_ValueError, "no such numbers");
    goto end;
  }
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t tile = first_tile; tile < last_tile; tile++) {
    const ptrdiff_t first = tile * TILE, n_left = n_examples - first;
    const ptrdiff_t n = n_left > TILE ? TILE : n_left;
    for (ptrdiff_t row = 0; row < n_rows; row++) {
      float *of_row = out + (tile * n_rows + row) * TILE;
      const ptrdiff_t column = columns[row];
      ptrdiff_t e = 0;
      for (; column >= 0 && e < n; e++)
        of_row[e] = x[(first + e) * n_columns + column];
      for (; e < TILE; e++)
        of_row[e] = 0;
    }
  }
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* out[k * stride] = loc[k] + sign * scale[k] * noise[index[k]] */
static PyObject *draw_values(PyObject *self, PyObject *args)
{
  PyObject *loc_object, *scale_object, *noise_object, *index_object, *out_object;
  float sign;
  Py_ssize_t offset, stride;
  if (!PyArg_ParseTuple(args, "OOOOfOnn", &loc_object, &scale_object, &noise_object, &index_object,
                        &sign, &out_object, &offset, &stride))
    return NULL;
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL;
  const int32_t *index = numbers_of(&buffers, index_object, 'i', 0, 0);
  const ptrdiff_t n = index ? n_taken(&buffers) : 0;
  const float *scale = index ? numbers_of(&buffers, scale_object, 'f', 0, n) : NULL;
  const float *noise = scale ? numbers_of(&buffers, noise_object, 'f', 0, 0) : NULL;
  const ptrdiff_t n_noise = noise ? n_taken(&buffers) : 0;
  const int has_loc = loc_object != Py_None;
  const float *loc = noise && has_loc ? numbers_of(&buffers, loc_object, 'f', 0, n) : NULL;
  if (!noise || (has_loc && !loc))
    goto end;
  if (offset < 0 || stride < 1) {
    PyErr_SetString(PyExc_ValueError, "no such place");
    goto end;
  }
  const ptrdiff_t n_out = n ? plus(plus(offset, times(n - 1, stride)), 1) : 0;
  float *out = numbers_of(&buffers, out_object, 'f', 1, n_out);
  if (!out)
    goto end;
  int32_t largest = -1, smallest = 0;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t k = 0; k < n; k++) {
    largest = index[k] > largest ? index[k] : largest;
    smallest = index[k] < smallest ? index[k] : smallest;
  }
  if (smallest >= 0 && largest < n_noise) {
    out += offset;
    for (ptrdiff_t k = 0; k < n; k++)
      out[k * stride] = (loc ? loc[k] : 0) + sign * scale[k] * noise[index[k]];
  }
  Py_END_ALLOW_THREADS;
  if (smallest < 0 || largest >= n_noise)
    PyErr_SetString(PyExc_ValueError, "no such noise");
  else
    result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* Whether rows of a tile lie below so many; each is given as its place in the tile. */
static int are_rows(const int32_t *rows, ptrdiff_t n, ptrdiff_t n_rows)
{
  int are = 1;
  for (ptrdiff_t k = 0; k < n; k++)
    are &= rows[k] >= 0 && rows[k] <= (n_rows - 1) * TILE;
  return are;
}

static int are_starts(const int32_t *starts, ptrdiff_t n, ptrdiff_t n_entries)
{
  int are = starts[0] == 0 && starts[n] == n_entries;
  for (ptrdiff_t k = 0; k < n; k++)
    are &= starts[k] <= starts[k + 1];
  return are;
}

static int is_tuple(PyObject *object)
{
  if (!PyTuple_Check(object))
    PyErr_SetString(PyExc_TypeError, "a layer that is no tuple");
  return PyTuple_Check(object);
}

static int take_first(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_tile_rows,
                      int has_means, struct first *first)
{
  PyObject *starts, *rows, *bases, *values, *bias;
  Py_ssize_t n_places, n_columns;
  if (!is_tuple(tuple) ||
      !PyArg_ParseTuple(tuple, "OOOnn(ff)OO", &starts, &rows, &bases, &n_places, &n_columns,
                        &first->bounds.low, &first->bounds.high, &values, &bias))
    return 0;
  if (n_columns < !has_means || n_columns > SHARED) {
    PyErr_SetString(PyExc_ValueError, "no such number of columns");
    return 0;
  }
  first->n_columns = n_columns;
  if (!(first->starts = numbers_of(buffers, starts, 'i', 0, 1)))
    return 0;
  first->n_filters = n_taken(buffers) - 1;
  if (!(first->rows = numbers_of(buffers, rows, 'i', 0, 0)))
    return 0;
  const ptrdiff_t n_entries = n_taken(buffers);
  if (!(first->bases = numbers_of(buffers, bases, 'i', 0, 1)))
    return 0;
  const ptrdiff_t n_bases = n_taken(buffers);
  if (!(first->values = numbers_of(buffers, values, 'f', 0, n_entries * n_columns)) ||
      !(first->bias = numbers_of(buffers, bias, 'f', 0, first->n_filters * n_columns)))
    return 0;
  first->n_places = n_places;
  int32_t most_base = 0, most_row = 0;
  int is_right = n_places > 0 && n_bases % n_places == 0;
  for (ptrdiff_t at = 0; at < n_bases; at++) {
    is_right &= first->bases[at] >= 0;
    most_base = first->bases[at] > most_base ? first->bases[at] : most_base;
  }
  for (ptrdiff_t k = 0; k < n_entries; k++) {
    is_right &= first->rows[k] >= 0;
    most_row = first->rows[k] > most_row ? first->rows[k] : most_row;
  }
  if (!is_right || (ptrdiff_t)most_base + most_row > (n_tile_rows - 1) * TILE ||
      !are_starts(first->starts, first->n_filters, n_entries)) {
    PyErr_SetString(PyExc_ValueError, "the first layer's places are not those of a tile");
    return 0;
  }
  first->n_positions = n_bases / n_places;
  return 1;
}

static int take_layer(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_in, ptrdiff_t n_draws,
                      struct layer *layer)
{
  PyObject *starts, *rows, *values, *bias;
  Py_ssize_t width, n_out;
  if (!is_tuple(tuple) || !PyArg_ParseTuple(tuple, "OOnn(ff)OO", &starts, &rows, &width, &n_out, &layer->bounds.low,
                        &layer->bounds.high, &values, &bias))
    return 0;
  if ((width != 1 && width != GROUP) || n_out < 0 || n_out > INT32_MAX) {
    PyErr_SetString(PyExc_ValueError, "no such layer");
    return 0;
  }
  layer->n_in = n_in, layer->n_out = n_out, layer->width = width;
  const ptrdiff_t n_groups = padded(layer) / width, n_parts = times(n_blocks(layer), n_groups);
  if (!(layer->rows = numbers_of(buffers, rows, 'i', 0, 0)))
    return 0;
  const ptrdiff_t n_entries = n_taken(buffers);
  layer->n_values = n_entries * width;
  if (!(layer->starts = numbers_of(buffers, starts, 'i', 0, plus(n_parts, 1))) ||
      !(layer->values = numbers_of(buffers, values, 'f', 0, n_draws * layer->n_values)) ||
      !(layer->bias = numbers_of(buffers, bias, 'f', 0, times(n_draws, padded(layer)))))
    return 0;
  int is_right = are_starts(layer->starts, n_parts, n_entries);
  for (ptrdiff_t block = 0; is_right && block < n_blocks(layer); block++) {
    const ptrdiff_t start = layer->starts[block * n_groups];
    const ptrdiff_t stop = layer->starts[(block + 1) * n_groups];
    const ptrdiff_t n_left = n_in - block * BLOCK;
    is_right = are_rows(layer->rows + start, stop - start, n_left > BLOCK ? BLOCK : n_left);
  }
  if (!is_right)
    PyErr_SetString(PyExc_ValueError, "a layer's rows are not those of its inputs");
  return is_right;
}

static int take_draws(PyObject *columns, PyObject *signs, ptrdiff_t n_columns,
                      struct draws *draws)
{
  draws->n = PyTuple_Check(columns) && PyTuple_Check(signs) ? PyTuple_GET_SIZE(columns) : 0;
  if (draws->n < 1 || draws->n > MOST_DRAWS || PyTuple_GET_SIZE(signs) != draws->n) {
    PyErr_Format(PyExc_ValueError, "at most %d draws at a time", MOST_DRAWS);
    return 0;
  }
  for (ptrdiff_t draw = 0; draw < draws->n; draw++) {
    const long column = PyLong_AsLong(PyTuple_GET_ITEM(columns, draw));
    draws->sign[draw] = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(signs, draw));
    if (PyErr_Occurred())
      return 0;
    if (column < -1 || column >= n_columns) {
      PyErr_SetString(PyExc_ValueError, "no such noise");
      return 0;
    }
    draws->column[draw] = (int)column;
  }
  return 1;
}

/* -1 and an error, if there are none. */
static ptrdiff_t n_numbers_of_tile(ptrdiff_t n_rows)
{
  const ptrdiff_t n_numbers = n_rows < 1 ? -1 : times(n_rows, TILE);
  if (n_numbers < 0)
    PyErr_SetString(PyExc_ValueError, "tiles without rows");
  return n_numbers;
}

static int are_tiles(ptrdiff_t first, ptrdiff_t last, ptrdiff_t n_tiles)
{
  const int are = first >= 0 && last <= n_tiles;
  if (!are)
    PyErr_SetString(PyExc_ValueError, "no such tile");
  return are;
}

/* Outputs of tiles first_tile..last_tile in some draws: out[draw][output][example].

   means: of the first layer's units, from `multiply`; None if they are its first column. */
static PyObject *forward(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *tiles_object, *first_object, *means_object, *columns, *signs, *layer_objects;
  PyObject *out_object, *scratch;
  Py_ssize_t n_tile_rows, first_tile, last_tile;
  if (!PyArg_ParseTuple(args, "sOnOOOOO!OOnn", &name, &tiles_object, &n_tile_rows, &first_object,
                        &means_object, &columns, &signs, &PyTuple_Type, &layer_objects,
                        &out_object, &scratch, &first_tile, &last_tile))
    return NULL;
  const struct set *set = set_of(name);
  struct buffers buffers;
  buffers.n = 0;
  struct first first;
  struct layer layers[MOST_LAYERS];
  struct draws draws;
  PyObject *result = NULL;
  const ptrdiff_t n_layers = PyTuple_GET_SIZE(layer_objects);
  const int has_means = means_object != Py_None;
  const ptrdiff_t n_tile_numbers = set ? n_numbers_of_tile(n_tile_rows) : -1;
  if (n_tile_numbers < 0 ||
      !take_first(&buffers, first_object, n_tile_rows, has_means, &first) ||
      !take_draws(columns, signs, first.n_columns, &draws))
    goto end;
  if (n_layers > MOST_LAYERS) {
    PyErr_SetString(PyExc_ValueError, "too many layers");
    goto end;
  }
  const ptrdiff_t n_units = first.n_filters * first.n_positions;
  ptrdiff_t n_out = n_units;
  for (ptrdiff_t at = 0; at < n_layers; at++) {
    PyObject *object = PyTuple_GET_ITEM(layer_objects, at);
    if (!take_layer(&buffers, object, n_out, draws.n, &layers[at]))
      goto end;
    n_out = layers[at].n_out;
  }
  const float *tiles = numbers_of(&buffers, tiles_object, 'f', 0, n_tile_numbers);
  if (!tiles)
    goto end;
  const ptrdiff_t n_tiles = n_taken(&buffers) / n_tile_numbers, n_examples = n_tiles * TILE;
  const float *means = NULL;
  if (has_means && !(means = numbers_of(&buffers, means_object, 'f', 0, times(n_examples, n_units))))
    goto end;
  const ptrdiff_t n_means = has_means ? n_taken(&buffers) / n_tiles : 0;
  const ptrdiff_t n_results = times(times(draws.n, n_out), n_examples);
  float *out = numbers_of(&buffers, out_object, 'f', 1, n_results);
  const ptrdiff_t n_sums = n_layers ? padded(&layers[0]) : 0;
  const ptrdiff_t n_scratch = draws.n * (BLOCK + n_sums) + 2 * most_units(layers, n_layers);
  float *room = out ? numbers_of(&buffers, scratch, 'f', 1, times(n_scratch, TILE)) : NULL;
  if (!room)
    goto end;
  if (!are_tiles(first_tile, last_tile, n_tiles))
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t tile = first_tile; tile < last_tile; tile++)
    set->forward(&first, layers, n_layers, &draws, tiles + tile * n_tile_numbers,
                 means ? means + tile * n_means : NULL, room, out + tile * TILE,
                 n_examples);
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* One layer of tiles first_tile..last_tile: out[tile][unit][example], groups filled up. */
static PyObject *multiply(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *tiles_object, *layer_object, *out_object;
  Py_ssize_t n_in, first_tile, last_tile;
  if (!PyArg_ParseTuple(args, "sOnOOnn", &name, &tiles_object, &n_in, &layer_object, &out_object,
                        &first_tile, &last_tile))
    return NULL;
  const struct set *set = set_of(name);
  struct buffers buffers;
  buffers.n = 0;
  struct layer layer;
  PyObject *result = NULL;
  const ptrdiff_t n_tile_numbers = set ? n_numbers_of_tile(n_in) : -1;
  if (n_tile_numbers < 0)
    goto end;
  const float *tiles = numbers_of(&buffers, tiles_object, 'f', 0, n_tile_numbers);
  if (!tiles)
    goto end;
  const ptrdiff_t n_tiles = n_taken(&buffers) / n_tile_numbers;
  if (!take_layer(&buffers, layer_object, n_in, 1, &layer))
    goto end;
  const ptrdiff_t n_sums = padded(&layer) * TILE;
  float *out = numbers_of(&buffers, out_object, 'f', 1, times(n_tiles, n_sums));
  if (!out)
    goto end;
  if (!are_tiles(first_tile, last_tile, n_tiles))
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t tile = first_tile; tile < last_tile; tile++)
    set->run_layer(&layer, 0, tiles + tile * n_tile_numbers, out + tile * n_sums);
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* Draws of one noise: signs alone. */
static int take_signs(PyObject *signs, struct draws *draws)
{
  draws->n = PyTuple_Check(signs) ? PyTuple_GET_SIZE(signs) : 0;
  if (draws->n < 1 || draws->n > MOST_DRAWS) {
    PyErr_Format(PyExc_ValueError, "at most %d draws at a time", MOST_DRAWS);
    return 0;
  }
  for (ptrdiff_t draw = 0; draw < draws->n; draw++)
    draws->sign[draw] = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(signs, draw));
  return !PyErr_Occurred();
}

static int are_places(const int32_t *places, ptrdiff_t n)
{
  int are = 1;
  for (ptrdiff_t k = 0; k < n; k++)
    are &= places[k] >= 0;
  if (!are)
    PyErr_SetString(PyExc_ValueError, "no such places");
  return are;
}

/* n_in: units before it; those of the first layer are given with their means. */
static int take_local(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_in, int is_first,
                      struct local *local)
{
  PyObject *mean, *variance, *key, *places;
  if (!is_tuple(tuple) || !PyArg_ParseTuple(tuple, "OOOO(ff)", &mean, &variance, &key, &places,
                                            &local->bounds.low, &local->bounds.high))
    return 0;
  local->key = NULL, local->places = NULL;
  if (!(local->places = numbers_of(buffers, places, 'i', 0, 0)))
    return 0;
  const ptrdiff_t n_out = n_taken(buffers);
  if (!are_places(local->places, n_out) ||
      (key != Py_None && !(local->key = numbers_of(buffers, key, 'I', 0, 5))))
    return 0;
  if (is_first) {
    local->mean = (struct layer){.n_out = n_out, .width = 1};
    return 1;
  }
  if (!take_layer(buffers, mean, n_in, 1, &local->mean) ||
      (local->key && !take_layer(buffers, variance, n_in, 1, &local->variance)))
    return 0;
  if (local->mean.n_out != n_out || (local->key && local->variance.n_out != n_out)) {
    PyErr_SetString(PyExc_ValueError, "a layer's places are not those of its units");
    return 0;
  }
  return 1;
}

/* Outputs of tiles first_tile..last_tile in the draws of a noise: out[draw][output][example]. */
static PyObject *forward_local(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *means_object, *deviations_object, *layer_objects, *signs, *out_object, *scratch;
  Py_ssize_t n_means, n_deviations, first_tile, last_tile;
  unsigned int replicate, position;
  if (!PyArg_ParseTuple(args, "sOnOnO!O!IIOOnn", &name, &means_object, &n_means,
                        &deviations_object, &n_deviations, &PyTuple_Type, &layer_objects,
                        &PyTuple_Type, &signs, &replicate, &position, &out_object, &scratch,
                        &first_tile, &last_tile))
    return NULL;
  const struct set *set = set_of(name);
  struct buffers buffers = {0};
  struct local layers[MOST_LAYERS];
  struct draws draws;
  PyObject *result = NULL;
  const ptrdiff_t n_layers = PyTuple_GET_SIZE(layer_objects);
  const ptrdiff_t n_numbers = set ? n_numbers_of_tile(n_means) : -1;
  if (n_numbers < 0 || !take_signs(signs, &draws))
    goto end;
  if (n_layers < 1 || n_layers > MOST_LAYERS) {
    PyErr_SetString(PyExc_ValueError, "no such number of layers");
    goto end;
  }
  ptrdiff_t n_units = 0, n_out = 0;
  for (ptrdiff_t at = 0; at < n_layers; at++) {
    if (!take_local(&buffers, PyTuple_GET_ITEM(layer_objects, at), n_out, !at, &layers[at]))
      goto end;
    n_out = layers[at].mean.n_out;
    n_units += n_out;
  }
  const float *means = numbers_of(&buffers, means_object, 'f', 0, n_numbers);
  if (!means)
    goto end;
  const ptrdiff_t n_tiles = n_taken(&buffers) / n_numbers, n_examples = n_tiles * TILE;
  if (layers[0].mean.n_out > n_means || (layers[0].key && layers[0].mean.n_out > n_deviations)) {
    PyErr_SetString(PyExc_ValueError, "too few means or deviations");
    goto end;
  }
  const float *deviations = NULL;
  const ptrdiff_t n_of_tile = times(n_deviations, TILE);
  if (layers[0].key &&
      !(deviations = numbers_of(&buffers, deviations_object, 'f', 0, times(n_tiles, n_of_tile))))
    goto end;
  float *out = numbers_of(&buffers, out_object, 'f', 1, times(times(draws.n, n_out), n_examples));
  const ptrdiff_t n_scratch = 4 * most_local_units(layers, n_layers) + n_units;
  float *room = out ? numbers_of(&buffers, scratch, 'f', 1, times(n_scratch, TILE)) : NULL;
  if (!room || !are_tiles(first_tile, last_tile, n_tiles))
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t tile = first_tile; tile < last_tile; tile++)
    set->forward_local(layers, n_layers, &draws, replicate, position + (uint32_t)(tile * TILE),
                       means + tile * n_numbers,
                       deviations ? deviations + tile * n_of_tile : NULL, room,
                       out + tile * TILE, n_examples);
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* Standard normals of some places at some positions: out[place][position]. */
static PyObject *normals_at(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *key_object, *places_object, *out_object;
  unsigned int replicate, first;
  Py_ssize_t n_positions;
  if (!PyArg_ParseTuple(args, "sOIInOO", &name, &key_object, &replicate, &first, &n_positions,
                        &places_object, &out_object))
    return NULL;
  const struct set *set = set_of(name);
  struct buffers buffers = {0};
  PyObject *result = NULL;
  const uint32_t *key = set ? numbers_of(&buffers, key_object, 'I', 0, 5) : NULL;
  const int32_t *places = key ? numbers_of(&buffers, places_object, 'i', 0, 0) : NULL;
  const ptrdiff_t n_places = places ? n_taken(&buffers) : 0;
  if (!places || !are_places(places, n_places))
    goto end;
  float *out = numbers_of(&buffers, out_object, 'f', 1, times(n_places, n_positions));
  if (!out)
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t at = 0; at < n_positions; at += TILE)
    set->tile_normals(key, replicate, first + (uint32_t)at, places, n_places, out + at,
                      n_positions, n_positions - at > TILE ? TILE : (int)(n_positions - at));
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* Standard normals of the first places at a position: out[four][place % 4]. */
static PyObject *normals_of(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *key_object, *out_object;
  unsigned int replicate, position;
  Py_ssize_t n_fours;
  if (!PyArg_ParseTuple(args, "sOIInO", &name, &key_object, &replicate, &position, &n_fours,
                        &out_object))
    return NULL;
  const struct set *set = set_of(name);
  struct buffers buffers = {0};
  PyObject *result = NULL;
  const uint32_t *key = set ? numbers_of(&buffers, key_object, 'I', 0, 5) : NULL;
  float *out = key ? numbers_of(&buffers, out_object, 'f', 1, times(n_fours, 4)) : NULL;
  if (!out)
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  uint32_t positions[TILE], fours[TILE];
  float normals[4 * TILE];
  for (int lane = 0; lane < TILE; lane++)
    positions[lane] = position;
  for (ptrdiff_t at = 0; at < n_fours; at += TILE) {
    for (int lane = 0; lane < TILE; lane++)
      fours[lane] = (uint32_t)(at + lane);
    set->four_normals(key, positions, fours, replicate, normals);
    const int n = n_fours - at > TILE ? TILE : (int)(n_fours - at);
    for (int lane = 0; lane < n; lane++)
      for (int place = 0; place < 4; place++)
        out[4 * (at + lane) + place] = normals[place * TILE + lane];
  }
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* Add what draws say of classes to sums; see add_classes in _compiled_classes.h.

   logits: float32, shape (n_draws, n_classes, n_examples), examples next to each other. */
static PyObject *add_predictions(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *logits_object, *label_object, *sums_object, *room_object, *correct, *nll_object;
  Py_ssize_t offset, sums_stride;
  if (!PyArg_ParseTuple(args, "sOOOnnOOO", &name, &logits_object, &label_object, &sums_object,
                        &offset, &sums_stride, &room_object, &correct, &nll_object))
    return NULL;
  const struct set *set = set_of(name);
  Py_buffer logits;
  if (!set || PyObject_GetBuffer(logits_object, &logits, PyBUF_STRIDED_RO | PyBUF_FORMAT))
    return NULL;
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL;
  if (logits.ndim != 3 || strcmp(logits.format, "f") || logits.strides[2] != 4 ||
      logits.strides[1] % 4 || logits.strides[0] % 4 || logits.shape[1] < 1 ||
      logits.shape[1] > INT32_MAX) {
    PyErr_SetString(PyExc_ValueError, "logits that are no rows of examples");
    goto end;
  }
  const ptrdiff_t n_draws = logits.shape[0], n_classes = logits.shape[1];
  const ptrdiff_t n_examples = logits.shape[2], stride = logits.strides[1] / 4;
  const int32_t *label = numbers_of(&buffers, label_object, 'i', 0, n_examples);
  if (label && sums_stride < n_examples) {
    PyErr_SetString(PyExc_ValueError, "no such sums");
    goto end;
  }
  const ptrdiff_t n_sums = plus(plus(offset, times(n_classes + 4, sums_stride)), n_examples);
  const ptrdiff_t n_room = n_classes * EXAMPLES;
  int64_t *sums = label ? numbers_of(&buffers, sums_object, 'l', 1, n_sums) : NULL;
  double *room = sums ? numbers_of(&buffers, room_object, 'd', 1, 3 * n_room) : NULL;
  int64_t *n_correct = room ? numbers_of(&buffers, correct, 'l', 1, n_draws) : NULL;
  int64_t *nll = n_correct ? numbers_of(&buffers, nll_object, 'l', 1, n_draws) : NULL;
  if (!nll)
    goto end;
  int are_classes = 1;
  for (ptrdiff_t e = 0; e < n_examples; e++)
    are_classes &= label[e] >= 0 && label[e] < n_classes;
  if (!are_classes) {
    PyErr_SetString(PyExc_ValueError, "a label that is no class");
    goto end;
  }
  float *filled = (float *)(room + 2 * n_room);
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t e = 0; e < n_examples; e += EXAMPLES)
    for (ptrdiff_t draw = 0; draw < n_draws; draw++) {
      const int n = n_examples - e > EXAMPLES ? EXAMPLES : (int)(n_examples - e);
      const float *of_draw = (const float *)((const char *)logits.buf + draw * logits.strides[0]);
      const float *some = of_draw + e;
      if (n < EXAMPLES) {
        for (ptrdiff_t c = 0; c < n_classes; c++)
          for (int at = 0; at < EXAMPLES; at++)
            filled[c * EXAMPLES + at] = some[c * stride + (at < n ? at : n - 1)];
        some = filled;
      }
      set->add_classes(some, n < EXAMPLES ? EXAMPLES : stride, n_classes, label + e, n, room,
                       sums + offset + e, sums_stride, n_correct + draw, nll + draw);
    }
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  PyBuffer_Release(&logits);
  return result;
}

#include "_compiled_graph.h"

static PyMethodDef methods[] = {
    {"supported_sets", supported_sets, METH_NOARGS, "Sets of instructions, the fastest first."},
    {"fill_tiles", fill_tiles, METH_VARARGS, "Examples as tiles."},
    {"draw_values", draw_values, METH_VARARGS, "Weights of a draw."},
    {"multiply", multiply, METH_VARARGS, "One layer."},
    {"forward", forward, METH_VARARGS, "Outputs of a chain of layers."},
    {"forward_local", forward_local, METH_VARARGS, "Outputs with noise of each example's own."},
    {"normals_at", normals_at, METH_VARARGS, "Standard normals of places at positions."},
    {"normals_of", normals_of, METH_VARARGS, "Standard normals of all places at a position."},
    {"weight_counts", weight_counts, METH_O, "How many of a kernel's weights are not zero."},
    {"weight_lists", weight_lists, METH_VARARGS, "A kernel's weights that are not zero."},
    {"square_weights", square_weights, METH_VARARGS, "Weights of Winograd's products."},
    {"fill_slabs", fill_slabs, METH_VARARGS, "Examples as slabs."},
    {"run_graph", run_graph, METH_VARARGS, "Outputs of a graph of layers."},
    {"add_predictions", add_predictions, METH_VARARGS, "Sums over draws of predictions."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_compiled", "See bprune_hpc.compiled.", -1, methods,
};

PyMODINIT_FUNC PyInit__compiled(void)
{
  PyObject *module = PyModule_Create(&definition);
  if (!module || PyModule_AddStringConstant(module, "SOURCES_SHA256", SOURCES_SHA256) ||
      PyModule_AddIntConstant(module, "TILE", TILE) ||
      PyModule_AddIntConstant(module, "BLOCK", BLOCK) ||
      PyModule_AddIntConstant(module, "GROUP", GROUP) ||
      PyModule_AddIntConstant(module, "SHARED", SHARED) ||
      PyModule_AddIntConstant(module, "EXAMPLES", EXAMPLES) ||
      PyModule_AddIntConstant(module, "MOST_DRAWS", MOST_DRAWS) ||
      PyModule_AddIntConstant(module, "SLAB", SLAB) ||
      PyModule_AddIntConstant(module, "GROUP_SLABS", GROUP_SLABS) ||
      PyModule_AddIntConstant(module, "VECTORS_OF_HALF", VECTORS_OF_HALF) ||
      PyModule_AddIntConstant(module, "FILTERS", FILTERS) ||
      PyModule_AddIntConstant(module, "SQUARES_TOGETHER", SQUARES_TOGETHER) ||
      PyModule_AddIntConstant(module, "MOST_LAYERS", MOST_LAYERS)) {
    Py_XDECREF(module);
    return NULL;
  }
  return module;
}
