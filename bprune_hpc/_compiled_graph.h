/* Graphs of layers: their lists of weights, their examples as slabs, and the run of all operations.

   Included once, by _compiled.c, whose buffers and sets of instructions it uses. All places are
   checked against the arrays that they are in before anything is run. */

#define GROUP_EXAMPLES (SLAB * GROUP_SLABS)
#define MOST_TENSORS 512

/* Where a tensor's channel 0, row 0, column 0 is: in the examples (0), or in the scratch.

   A group's slabs are each a tensor of their own, or one has room for a slab alone, or they lie
   side by side in each column. */
struct tensor {
  int64_t start, slab_stride, channel_stride, row_stride, column_stride;
  int64_t n_channels, n_rows, n_columns;
};

struct operation {
  enum { CONVOLUTION, ELEMENTWISE, POOLING, SQUARES } kind;
  ptrdiff_t in, out, other; /* tensors; -1 for none */
  ptrdiff_t noise;          /* of a shared one, what it gives with a noise */
  union {
    struct convolution convolution;
    struct elementwise elementwise;
    struct pooling pooling;
  };
};

struct program {
  struct tensor tensors[MOST_TENSORS];
  ptrdiff_t n_tensors, n_shared, n_narrow, n_operations, n_outputs, n_in, n_scratch;
  struct operation *operations;
  const int32_t *outputs; /* in the last one's result */
  ptrdiff_t result;
  const struct set *set;
};

/* A kernel's weights that are not zero as lists; see `weight_lists`. */
struct kernel {
  const float *loc, *scale;
  const int32_t *tap_offsets;
  ptrdiff_t n_taps, n_in, n_out, channel_stride, block, width;
};

/* Where lists are written to. */
struct lists {
  const int32_t *starts;
  int32_t *offsets, *places;
  float *loc, *scale;
};

#define MOST_KEPT (512 * FILTERS) /* weights of a row that are looked at together */

/* Which of n weights are not zero, one byte each, and zeros up to whole runs of FILTERS. */
static void find_kept(const float *loc, const float *scale, ptrdiff_t n, uint8_t *kept)
{
  if (scale)
    for (ptrdiff_t f = 0; f < n; f++)
      kept[f] = (loc[f] != 0) | (scale[f] != 0);
  else
    for (ptrdiff_t f = 0; f < n; f++)
      kept[f] = loc[f] != 0;
  memset(kept + n, 0, FILTERS);
}

/* Weights that are not zero, and runs of FILTERS of a row with any of them. */
static void count_kept(const struct kernel *k, int64_t *alone, int64_t *together)
{
  uint8_t kept[MOST_KEPT + FILTERS];
  for (ptrdiff_t row = 0; row < k->n_taps * k->n_in; row++)
    for (ptrdiff_t first = 0; first < k->n_out; first += MOST_KEPT) {
      const ptrdiff_t n_left = k->n_out - first, at = row * k->n_out + first;
      const ptrdiff_t n = n_left > MOST_KEPT ? MOST_KEPT : n_left;
      find_kept(k->loc + at, k->scale ? k->scale + at : NULL, n, kept);
      int32_t sum = 0, sum_of_runs = 0;
      for (ptrdiff_t f = 0; f < n; f++)
        sum += kept[f];
      for (ptrdiff_t f = 0; f < n; f += FILTERS) {
        int any = 0;
        for (ptrdiff_t i = f; i < f + FILTERS; i++)
          any |= kept[i];
        sum_of_runs += any;
      }
      *alone += sum, *together += sum_of_runs;
    }
}

/* Those of a row's weights from first on, which a list's entry begins with; in their order. */
static ptrdiff_t find_entries(const struct kernel *k, ptrdiff_t row, ptrdiff_t first,
                              int32_t *found)
{
  uint8_t kept[MOST_KEPT + FILTERS];
  const ptrdiff_t n_left = k->n_out - first, at = row * k->n_out + first;
  const ptrdiff_t n = n_left > MOST_KEPT ? MOST_KEPT : n_left;
  ptrdiff_t n_found = 0;
  find_kept(k->loc + at, k->scale ? k->scale + at : NULL, n, kept);
  for (ptrdiff_t f = 0; f < n; f += k->width) { /* no branch: it would be as often wrong as right */
    int any = kept[f];
    for (ptrdiff_t i = 1; i < k->width; i++)
      any |= kept[f + i];
    found[n_found] = (int32_t)(first + f);
    n_found += any;
  }
  return n_found;
}

/* Entry of a list, of the weights of its width from f on. */
static void put_entry(const struct kernel *k, const struct lists *lists, ptrdiff_t entry,
                      ptrdiff_t row, ptrdiff_t f, int32_t offset)
{
  lists->offsets[entry] = offset;
  for (ptrdiff_t i = 0; i < k->width; i++) {
    const int is_one = f + i < k->n_out;
    const ptrdiff_t to = entry * k->width + i, from = row * k->n_out + f + i;
    lists->places[to] = is_one ? (int32_t)from : -1;
    lists->loc[to] = is_one ? k->loc[from] : 0;
    if (lists->scale)
      lists->scale[to] = is_one ? k->scale[from] : 0;
  }
}

/* Count each list's entries, next[list], or write them from there on; 0 if they do not fit. */
static int make_lists(const struct kernel *k, int32_t *next, const struct lists *lists)
{
  int32_t found[MOST_KEPT];
  const ptrdiff_t n_lists = (k->n_out + k->width - 1) / k->width;
  for (ptrdiff_t start = 0; start == 0 || start < k->n_in; start += k->block) {
    int32_t *of_block = next + start / k->block * n_lists;
    const ptrdiff_t stop = k->n_in - start > k->block ? start + k->block : k->n_in;
    for (ptrdiff_t at = 0; at < k->n_taps; at++)
      for (ptrdiff_t c = start; c < stop; c++) {
        const ptrdiff_t row = at * k->n_in + c;
        const int32_t offset = (int32_t)((c - start) * k->channel_stride + k->tap_offsets[at]);
        for (ptrdiff_t first = 0; first < k->n_out; first += MOST_KEPT) {
          const ptrdiff_t n = find_entries(k, row, first, found);
          for (ptrdiff_t i = 0; i < n; i++) {
            int32_t *list = of_block + (k->width == 1 ? found[i] : found[i] / FILTERS);
            const int32_t entry = (*list)++;
            if (lists && entry >= lists->starts[list - next + 1])
              return 0;
            if (lists)
              put_entry(k, lists, entry, row, found[i], offset);
          }
        }
      }
  }
  return 1;
}

static int take_kernel(struct buffers *buffers, PyObject *tuple, struct kernel *k)
{
  PyObject *loc, *scale, *tap_offsets;
  if (!is_tuple(tuple) || !PyArg_ParseTuple(tuple, "OOOnnn", &loc, &scale, &tap_offsets, &k->n_in,
                                            &k->n_out, &k->channel_stride))
    return 0;
  k->tap_offsets = numbers_of(buffers, tap_offsets, 'i', 0, 1);
  k->n_taps = k->tap_offsets ? n_taken(buffers) : 0;
  const ptrdiff_t n_weights = times(times(k->n_taps, k->n_in), k->n_out);
  k->loc = k->tap_offsets ? numbers_of(buffers, loc, 'f', 0, n_weights) : NULL;
  k->scale = NULL;
  if (!k->loc || (scale != Py_None && !(k->scale = numbers_of(buffers, scale, 'f', 0, n_weights))))
    return 0;
  const ptrdiff_t reach = times(k->n_in, k->channel_stride);
  int is_right = n_weights <= INT32_MAX && reach >= 0;
  for (ptrdiff_t at = 0; at < k->n_taps; at++)
    is_right &= k->tap_offsets[at] >= 0 && k->tap_offsets[at] <= INT32_MAX - reach;
  if (!is_right)
    PyErr_SetString(PyExc_ValueError, "no such kernel");
  return is_right;
}

/* How many weights of a kernel are not zero, and how many runs of FILTERS of a row have one. */
static PyObject *weight_counts(PyObject *self, PyObject *kernel)
{
  struct buffers buffers;
  buffers.n = 0;
  struct kernel k;
  int64_t alone = 0, together = 0;
  const int is_right = take_kernel(&buffers, kernel, &k);
  if (is_right) {
    Py_BEGIN_ALLOW_THREADS;
    count_kept(&k, &alone, &together);
    Py_END_ALLOW_THREADS;
  }
  give_back(&buffers);
  return is_right ? Py_BuildValue("LL", (long long)alone, (long long)together) : NULL;
}

/* Lists of a kernel (taps, in, out): for each block of inputs, and filter or `width` of them.

   Within a list come the taps in their order, and then the inputs. The entries of each list are
   counted; or, where these sums are given as starts, offsets from a block's first input, places
   among the kernel's weights, -1 for none, means and deviations are written. */
static PyObject *weight_lists(PyObject *self, PyObject *args)
{
  PyObject *kernel, *starts, *written;
  struct kernel k;
  if (!PyArg_ParseTuple(args, "OnnOO", &kernel, &k.block, &k.width, &starts, &written))
    return NULL;
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL, *offsets, *places, *loc, *scale;
  int32_t *next = NULL;
  if (!take_kernel(&buffers, kernel, &k))
    goto end;
  if (k.block < 1 || (k.width != 1 && k.width != FILTERS)) {
    PyErr_SetString(PyExc_ValueError, "no such lists");
    goto end;
  }
  const ptrdiff_t n_blocks = k.n_in > k.block ? (k.n_in + k.block - 1) / k.block : 1;
  const ptrdiff_t n_lists = times(n_blocks, (k.n_out + k.width - 1) / k.width);
  const int counts = written == Py_None;
  int32_t *bounds = numbers_of(&buffers, starts, 'i', counts, plus(n_lists, 1));
  if (!bounds)
    goto end;
  if (counts) {
    Py_BEGIN_ALLOW_THREADS;
    make_lists(&k, bounds + 1, NULL);
    Py_END_ALLOW_THREADS;
    result = Py_NewRef(Py_None);
    goto end;
  }
  struct lists lists = {bounds, NULL, NULL, NULL, NULL};
  if (!is_tuple(written) || !PyArg_ParseTuple(written, "OOOO", &offsets, &places, &loc, &scale) ||
      !(lists.offsets = numbers_of(&buffers, offsets, 'i', 1, 0)))
    goto end;
  const ptrdiff_t n_entries = n_taken(&buffers), n_values = times(n_entries, k.width);
  if (!(lists.places = numbers_of(&buffers, places, 'i', 1, n_values)) ||
      !(lists.loc = numbers_of(&buffers, loc, 'f', 1, n_values)) ||
      (k.scale && !(lists.scale = numbers_of(&buffers, scale, 'f', 1, n_values))))
    goto end;
  if (!are_starts(bounds, n_lists, n_entries)) {
    PyErr_SetString(PyExc_ValueError, "no such lists");
    goto end;
  }
  if (!(next = PyMem_RawMalloc((size_t)(n_lists + 1) * sizeof *next))) {
    PyErr_NoMemory();
    goto end;
  }
  memcpy(next, bounds, (size_t)n_lists * sizeof *next);
  int fit;
  Py_BEGIN_ALLOW_THREADS;
  fit = make_lists(&k, next, &lists);
  for (ptrdiff_t list = 0; fit && list < n_lists; list++)
    fit = next[list] == bounds[list + 1];
  Py_END_ALLOW_THREADS;
  if (fit)
    result = Py_NewRef(Py_None);
  else
    PyErr_SetString(PyExc_ValueError, "lists of another kernel");
end:
  PyMem_RawFree(next);
  give_back(&buffers);
  return result;
}

/* Kernels (3, 3, in, out) -> [place][FILTERS of out][in][one of FILTERS], in each draw. */
static PyObject *square_weights(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *kernels, *written;
  Py_ssize_t size, n_draws, n_in, n_out;
  const struct set *set;
  if (!PyArg_ParseTuple(args, "snOnnnO", &name, &size, &kernels, &n_draws, &n_in, &n_out, &written) ||
      !(set = set_of(name)))
    return NULL;
  if (size != 2 && size != 4) {
    PyErr_SetString(PyExc_ValueError, "no such squares");
    return NULL;
  }
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL;
  const ptrdiff_t n_lists = (n_out + FILTERS - 1) / FILTERS, n_plane = times(n_in, n_out);
  const ptrdiff_t of_place = times(n_in, n_lists * FILTERS), n_places = (size + 2) * (size + 2);
  const float *from = numbers_of(&buffers, kernels, 'f', 0, times(n_draws, times(9, n_plane)));
  float *to =
      from ? numbers_of(&buffers, written, 'f', 1, times(n_draws, times(n_places, of_place))) : NULL;
  if (!to)
    goto end;
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t draw = 0; draw < n_draws; draw++, from += 9 * n_plane, to += n_places * of_place)
    set->square_weights(size, from, n_in, n_out, to);
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

/* rows of examples -> groups first..last of slabs, in an array whose numbers outside are zeros.

   columns: where each number of an example goes, from a slab's beginning. */
static PyObject *fill_slabs(PyObject *self, PyObject *args)
{
  PyObject *x_object, *columns_object, *out_object;
  Py_ssize_t n_examples, group_stride, slab_stride, first, last;
  if (!PyArg_ParseTuple(args, "OnOOnnnn", &x_object, &n_examples, &columns_object, &out_object,
                        &group_stride, &slab_stride, &first, &last))
    return NULL;
  struct buffers buffers;
  buffers.n = 0;
  PyObject *result = NULL;
  const int32_t *columns = numbers_of(&buffers, columns_object, 'i', 0, 0);
  const ptrdiff_t n = columns ? n_taken(&buffers) : 0;
  const float *x = columns ? numbers_of(&buffers, x_object, 'f', 0, times(n_examples, n)) : NULL;
  float *out = x ? numbers_of(&buffers, out_object, 'f', 1, times(last, group_stride)) : NULL;
  if (!out)
    goto end;
  int is_right = first >= 0 && slab_stride >= 0;
  const ptrdiff_t reach = plus(times(GROUP_SLABS - 1, slab_stride), SLAB);
  for (ptrdiff_t at = 0; at < n; at++)
    is_right &= columns[at] >= 0 && columns[at] <= group_stride - reach;
  if (!is_right) {
    PyErr_SetString(PyExc_ValueError, "no such places in a slab");
    goto end;
  }
  Py_BEGIN_ALLOW_THREADS;
  for (ptrdiff_t slab = first * GROUP_SLABS; slab < last * GROUP_SLABS; slab++)
    for (ptrdiff_t e = 0; e < SLAB; e++) {
      const ptrdiff_t example = slab * SLAB + e;
      float *to = out + slab / GROUP_SLABS * group_stride + slab % GROUP_SLABS * slab_stride + e;
      if (example < n_examples)
        for (ptrdiff_t at = 0; at < n; at++)
          to[columns[at]] = x[example * n + at];
      else
        for (ptrdiff_t at = 0; at < n; at++)
          to[columns[at]] = 0;
    }
  Py_END_ALLOW_THREADS;
  result = Py_NewRef(Py_None);
end:
  give_back(&buffers);
  return result;
}

struct span {
  int64_t least, most;
};

static struct span span_of(const int32_t *numbers, ptrdiff_t n, ptrdiff_t stride)
{
  int32_t least = n ? numbers[0] : 0, most = least;
  for (ptrdiff_t at = 0; at < n; at++) {
    least = numbers[at * stride] < least ? numbers[at * stride] : least;
    most = numbers[at * stride] > most ? numbers[at * stride] : most;
  }
  return (struct span){least, most};
}

/* Whether vectors at places of a tensor's slabs are in the array that it is in. */
static int are_inside(const struct program *program, ptrdiff_t at, struct span span)
{
  const struct tensor *tensor = &program->tensors[at];
  const int64_t n = at ? program->n_scratch : program->n_in;
  const int64_t slabs = (GROUP_SLABS - 1) * tensor->slab_stride;
  const int are = tensor->start + span.least >= 0 && tensor->start + span.most + slabs + SLAB <= n;
  if (!are)
    PyErr_SetString(PyExc_ValueError, "an operation's places are not those of its tensors");
  return are;
}

/* The number of a tensor; an operation writes no examples. */
static int is_tensor(const struct program *program, ptrdiff_t at, ptrdiff_t least)
{
  const int is = at >= least && at < program->n_tensors;
  if (!is)
    PyErr_SetString(PyExc_ValueError, "no such tensor");
  return is;
}

/* Whether a tensor, if there is one, is of the size of another one. */
static int is_like(const struct program *program, ptrdiff_t at, ptrdiff_t other)
{
  if (at < 0)
    return 1;
  const struct tensor *a = &program->tensors[at], *b = &program->tensors[other];
  const int is =
      a->n_channels == b->n_channels && a->n_rows == b->n_rows && a->n_columns == b->n_columns;
  if (!is)
    PyErr_SetString(PyExc_ValueError, "tensors of other sizes");
  return is;
}

static struct strides strides_of(const struct program *program, ptrdiff_t at)
{
  const struct tensor *tensor = &program->tensors[at < 0 ? 0 : at];
  return (struct strides){tensor->channel_stride, tensor->row_stride, tensor->column_stride};
}

static int take_convolution(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_sets,
                            struct program *program, struct operation *op)
{
  PyObject *starts, *offsets, *values, *scale, *shift, *tiles, *sources;
  struct convolution *c = &op->convolution;
  int kind;
  if (!PyArg_ParseTuple(tuple, "innn(ff)nnnnnOOOOOOO", &kind, &op->in, &op->out, &op->other,
                        &c->bounds.low, &c->bounds.high, &c->width, &c->block, &c->n_together,
                        &c->half, &c->room, &tiles, &sources, &starts, &offsets, &values, &scale,
                        &shift) ||
      !is_tensor(program, op->in, 0) || !is_tensor(program, op->out, 1) ||
      !is_tensor(program, op->other, -1))
    return 0;
  const struct tensor *in = &program->tensors[op->in], *out = &program->tensors[op->out];
  c->n_channels = in->n_channels, c->n_filters = out->n_channels;
  const int32_t *numbers = numbers_of(buffers, tiles, 'i', 0, 1);
  const ptrdiff_t n_numbers = sizeof *c->tiles / sizeof *numbers;
  c->n_tiles = numbers ? n_taken(buffers) / n_numbers : 0;
  c->tiles = (const struct tile *)numbers;
  c->sources = numbers ? numbers_of(buffers, sources, 'i', 0, 1) : NULL;
  const ptrdiff_t n_all = c->sources ? n_taken(buffers) : 0;
  if (!c->sources)
    return 0;
  int is_right = (c->width == 1 || c->width == FILTERS) && c->block > 0 && c->n_tiles > 0 &&
                 n_all % c->n_tiles == 0 && c->half >= 0 && c->n_together > 0 &&
                 GROUP_SLABS % c->n_together == 0;
  c->n_sources = is_right ? n_all / c->n_tiles : 0;
  c->n_blocks = is_right && c->n_channels > c->block ? (c->n_channels + c->block - 1) / c->block : 1;
  /* A tile reads all vectors of its halves, whether it has so many columns or not. */
  const ptrdiff_t n_near = plus(times(times(c->block, c->n_sources), c->n_together * SLAB),
                                VECTORS_OF_HALF * SLAB);
  const ptrdiff_t n_sums = times(c->n_filters, 2 * VECTORS_OF_HALF * SLAB);
  const ptrdiff_t n_room = plus(n_near, c->n_blocks > 1 ? n_sums : 0);
  is_right = is_right && n_room >= 0 && c->room >= 0 && c->room <= program->n_scratch - n_room;
  for (ptrdiff_t at = 0; is_right && at < c->n_tiles; at++)
    for (int half = 0; half < 2; half++)
      is_right &= c->tiles[at].n_columns[half] >= 0 &&
                  c->tiles[at].n_columns[half] <= VECTORS_OF_HALF / c->n_together;
  if (!is_right) {
    PyErr_SetString(PyExc_ValueError, "no such convolution");
    return 0;
  }
  const ptrdiff_t n_lists = times(c->n_blocks, (c->n_filters + c->width - 1) / c->width);
  if (!(c->offsets = numbers_of(buffers, offsets, 'i', 0, 0)))
    return 0;
  const ptrdiff_t n_entries = n_taken(buffers);
  c->n_values = n_entries * c->width;
  if (!(c->starts = numbers_of(buffers, starts, 'i', 0, plus(n_lists, 1))) ||
      !(c->values = numbers_of(buffers, values, 'f', 0, times(n_sets, c->n_values))) ||
      !(c->scale = numbers_of(buffers, scale, 'f', 0, times(n_sets, c->n_filters))) ||
      !(c->shift = numbers_of(buffers, shift, 'f', 0, times(n_sets, c->n_filters))))
    return 0;
  const struct span offset = span_of(c->offsets, n_entries, 1);
  if (!are_starts(c->starts, n_lists, n_entries) || offset.least < 0 ||
      (n_entries && offset.most + c->half + VECTORS_OF_HALF * SLAB > n_near)) {
    PyErr_SetString(PyExc_ValueError, "lists that are not a convolution's");
    return 0;
  }
  const struct strides from = strides_of(program, op->in), to = strides_of(program, op->out);
  const struct strides added = strides_of(program, op->other);
  c->in_channel = from.channel, c->out_column = to.column, c->other_column = added.column;
  struct span read = {0, 0};
  for (ptrdiff_t at = 0; at < n_all; at++)
    read.most = c->sources[at] > read.most ? c->sources[at] : read.most;
  read.most += (c->n_channels - 1) * from.channel;
  is_right = !c->n_channels || are_inside(program, op->in, read);
  for (ptrdiff_t at = 0; at < 2 * c->n_tiles && is_right && c->n_filters; at++) {
    const struct tile *tile = &c->tiles[at / 2];
    const int64_t n_more = tile->n_columns[at % 2] - 1, last = c->n_filters - 1;
    const int32_t place = tile->out[at % 2], other = tile->other[at % 2];
    const struct span written = {place, place + n_more * to.column + last * to.channel};
    const struct span summed = {other, other + n_more * added.column + last * added.channel};
    is_right = n_more < 0 || (are_inside(program, op->out, written) &&
                              (op->other < 0 || are_inside(program, op->other, summed)));
  }
  return is_right && is_like(program, op->other, op->out);
}

static int take_squares(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_sets,
                        struct program *program, struct operation *op)
{
  PyObject *values, *scale, *shift, *squares;
  struct convolution *c = &op->convolution;
  int kind;
  if (!PyArg_ParseTuple(tuple, "innn(ff)nnnOOOO", &kind, &op->in, &op->out, &op->other,
                        &c->bounds.low, &c->bounds.high, &c->square_size,
                        &c->n_together, &c->room, &squares, &values, &scale, &shift) ||
      !is_tensor(program, op->in, 0) || !is_tensor(program, op->out, 1) ||
      !is_tensor(program, op->other, -1))
    return 0;
  const struct tensor *in = &program->tensors[op->in], *out = &program->tensors[op->out];
  const struct strides from = strides_of(program, op->in), to = strides_of(program, op->out);
  const struct strides added = strides_of(program, op->other);
  c->n_channels = in->n_channels, c->n_filters = out->n_channels;
  c->in_channel = from.channel, c->in_row = from.row, c->in_column = from.column;
  c->out_row = to.row, c->out_column = to.column;
  c->other_row = added.row, c->other_column = added.column;
  const ptrdiff_t n_lists = (c->n_filters + FILTERS - 1) / FILTERS, n_units = n_lists * FILTERS;
  const ptrdiff_t size = c->square_size == 2 || c->square_size == 4 ? c->square_size : -1;
  const ptrdiff_t n_places = (size + 2) * (size + 2);
  c->n_values = times(n_places, times(c->n_channels, n_units));
  const int32_t *numbers = numbers_of(buffers, squares, 'i', 0, 1);
  const ptrdiff_t n_numbers = sizeof *c->squares / sizeof *numbers;
  c->n_squares = numbers ? n_taken(buffers) / n_numbers : 0;
  c->squares = (const struct square *)numbers;
  if (!numbers ||
      !(c->values = numbers_of(buffers, values, 'f', 0, times(n_sets, c->n_values))) ||
      !(c->scale = numbers_of(buffers, scale, 'f', 0, times(n_sets, c->n_filters))) ||
      !(c->shift = numbers_of(buffers, shift, 'f', 0, times(n_sets, c->n_filters))))
    return 0;
  const ptrdiff_t n_rows = plus(plus(c->n_channels, n_units), 1);
  const ptrdiff_t n_room = times(times(n_places, n_rows), SQUARES_TOGETHER * SLAB);
  int is_right = size > 0 && n_room >= 0 &&
                 c->n_together > 0 && c->room >= 0 && c->room <= program->n_scratch - n_room && c->n_squares > 0;
  for (ptrdiff_t at = 0; is_right && at < c->n_squares; at++) {
    const struct square *one = &c->squares[at];
    struct span read = {INT32_MAX, INT32_MIN};
    for (ptrdiff_t tap = 0; tap < n_places; tap++)
      if (one->rows >> tap / (size + 2) & one->columns >> tap % (size + 2) & 1) {
        const int64_t place =
            one->in + tap / (size + 2) * from.row + tap % (size + 2) * from.column;
        read.least = place < read.least ? place : read.least;
        read.most = place > read.most ? place : read.most;
      }
    read.most += (c->n_channels - 1) * from.channel;
    is_right = one->n_rows >= 0 && one->n_rows <= size && one->n_columns >= 0 &&
               one->n_columns <= size;
    const struct span written = {one->out, one->out + to.row * (one->n_rows - 1) +
                                               to.column * (one->n_columns - 1) +
                                               (c->n_filters - 1) * to.channel};
    const struct span other = {one->other, one->other + added.row * (one->n_rows - 1) +
                                               added.column * (one->n_columns - 1) +
                                               (c->n_filters - 1) * added.channel};
    is_right = is_right && (!c->n_channels || are_inside(program, op->in, read)) &&
               (!c->n_filters || (are_inside(program, op->out, written) &&
                                  (op->other < 0 || are_inside(program, op->other, other))));
  }
  if (!is_right && !PyErr_Occurred())
    PyErr_SetString(PyExc_ValueError, "no such squares");
  return is_right && is_like(program, op->other, op->out);
}

static int take_elementwise(struct buffers *buffers, PyObject *tuple, ptrdiff_t n_sets,
                            struct program *program, struct operation *op)
{
  PyObject *scale, *shift;
  struct elementwise *e = &op->elementwise;
  int kind;
  if (!PyArg_ParseTuple(tuple, "innn(ff)pifOO", &kind, &op->in, &op->out, &op->other,
                        &e->bounds.low, &e->bounds.high, &e->is_pair, &e->function, &e->alpha,
                        &scale, &shift) ||
      !is_tensor(program, op->in, 0) || !is_tensor(program, op->out, 1) ||
      !is_tensor(program, op->other, -1))
    return 0;
  const struct tensor *out = &program->tensors[op->out];
  e->in = strides_of(program, op->in), e->out = strides_of(program, op->out);
  e->other = strides_of(program, op->other);
  e->n_channels = out->n_channels, e->n_rows = out->n_rows, e->n_columns = out->n_columns;
  return (e->scale = numbers_of(buffers, scale, 'f', 0, times(n_sets, e->n_channels))) &&
         (e->shift = numbers_of(buffers, shift, 'f', 0, times(n_sets, e->n_channels))) &&
         is_like(program, op->in, op->out) && is_like(program, op->other, op->out);
}

static int take_pooling(struct buffers *buffers, PyObject *tuple, struct program *program,
                        struct operation *op)
{
  PyObject *starts, *offsets, *places;
  struct pooling *p = &op->pooling;
  int kind;
  op->other = -1;
  if (!PyArg_ParseTuple(tuple, "innpOOO", &kind, &op->in, &op->out, &p->is_mean, &starts,
                        &offsets, &places) ||
      !is_tensor(program, op->in, 0) || !is_tensor(program, op->out, 1))
    return 0;
  const struct tensor *in = &program->tensors[op->in], *out = &program->tensors[op->out];
  p->n_channels = out->n_channels;
  p->in_channel = in->channel_stride, p->out_channel = out->channel_stride;
  if (!(p->places = numbers_of(buffers, places, 'i', 0, 1)))
    return 0;
  p->n_places = n_taken(buffers);
  if (!(p->offsets = numbers_of(buffers, offsets, 'i', 0, 1)))
    return 0;
  const ptrdiff_t n_entries = n_taken(buffers);
  if (!(p->starts = numbers_of(buffers, starts, 'i', 0, p->n_places + 1)))
    return 0;
  int is_right = are_starts(p->starts, p->n_places, n_entries);
  for (ptrdiff_t at = 0; at < p->n_places; at++)
    is_right &= p->starts[at] < p->starts[at + 1];
  if (!is_right) {
    PyErr_SetString(PyExc_ValueError, "windows without a place");
    return 0;
  }
  struct span read = span_of(p->offsets, n_entries, 1);
  struct span written = span_of(p->places, p->n_places, 1);
  read.most += (p->n_channels - 1) * p->in_channel;
  written.most += (p->n_channels - 1) * p->out_channel;
  return !p->n_channels ||
         (are_inside(program, op->in, read) && are_inside(program, op->out, written));
}

/* tuple of operations -> operations; shared ones are told from others by their place. */
static int take_operations(struct buffers *buffers, PyObject *shared, PyObject *others,
                           ptrdiff_t n_shared_sets, ptrdiff_t n_sets, struct program *program)
{
  program->n_shared = PyTuple_GET_SIZE(shared);
  program->n_operations = program->n_shared + PyTuple_GET_SIZE(others);
  program->operations = PyMem_RawCalloc((size_t)program->n_operations + 1, sizeof(struct operation));
  if (!program->operations) {
    PyErr_NoMemory();
    return 0;
  }
  for (ptrdiff_t at = 0; at < program->n_operations; at++) {
    struct operation *op = &program->operations[at];
    const int is_shared = at < program->n_shared;
    PyObject *tuple = is_shared ? PyTuple_GET_ITEM(shared, at)
                                : PyTuple_GET_ITEM(others, at - program->n_shared);
    const ptrdiff_t n = is_shared ? n_shared_sets : n_sets;
    if (!is_tuple(tuple))
      return 0;
    const long kind =
        PyTuple_GET_SIZE(tuple) ? PyLong_AsLong(PyTuple_GET_ITEM(tuple, 0)) : -1;
    if (PyErr_Occurred())
      return 0;
    int is_right = 0;
    op->kind = kind == CONVOLUTION   ? CONVOLUTION
               : kind == SQUARES     ? SQUARES
               : kind == ELEMENTWISE ? ELEMENTWISE
                                     : POOLING;
    if (kind == CONVOLUTION || kind == SQUARES) {
      is_right = (kind == SQUARES ? take_squares : take_convolution)(buffers, tuple, n, program, op);
      op->noise = op->other;
      op->other = is_shared ? -1 : op->other;
      is_right = is_right && (!is_shared || is_tensor(program, op->noise, 1));
    }
    else if (kind == ELEMENTWISE && !is_shared)
      is_right = take_elementwise(buffers, tuple, n, program, op);
    else if (kind == POOLING && !is_shared)
      is_right = take_pooling(buffers, tuple, program, op);
    else
      PyErr_SetString(PyExc_ValueError, "no such operation");
    if (!is_right)
      return 0;
  }
  return 1;
}

static int take_tensors(const int64_t *numbers, ptrdiff_t n, struct program *program)
{
  const ptrdiff_t n_numbers = sizeof(struct tensor) / sizeof *numbers;
  program->n_tensors = n / n_numbers;
  int is_right = program->n_tensors > 0 && program->n_tensors <= MOST_TENSORS;
  for (ptrdiff_t at = 0; is_right && at < program->n_tensors; at++) {
    struct tensor *tensor = &program->tensors[at];
    memcpy(tensor, numbers + at * n_numbers, sizeof *tensor);
    for (ptrdiff_t i = 0; i < n_numbers; i++)
      is_right &= numbers[at * n_numbers + i] >= 0 && numbers[at * n_numbers + i] <= INT32_MAX;
    is_right = is_right && tensor->n_rows > 0 && tensor->n_columns > 0;
  }
  for (ptrdiff_t at = 0; is_right && at < program->n_tensors; at++) {
    const struct tensor *tensor = &program->tensors[at];
    const int64_t last = (tensor->n_channels - 1) * tensor->channel_stride +
                         (tensor->n_rows - 1) * tensor->row_stride;
    const struct span span = {0, last + (tensor->n_columns - 1) * tensor->column_stride};
    is_right = !tensor->n_channels || are_inside(program, at, span);
  }
  if (!is_right && !PyErr_Occurred())
    PyErr_SetString(PyExc_ValueError, "no such tensors");
  return is_right;
}

/* Where a tensor's slab is. */
static float *slab_of(const struct program *program, ptrdiff_t at, ptrdiff_t slab,
                      const float *examples, float *scratch)
{
  const struct tensor *tensor = &program->tensors[at];
  return (at ? scratch : (float *)examples) + tensor->start + slab * tensor->slab_stride;
}

/* An operation on slabs first..last with a set of its weights. */
static void run_operation(const struct program *program, const struct operation *op, ptrdiff_t to,
                          ptrdiff_t set, const struct draws *draws, ptrdiff_t draw,
                          ptrdiff_t first, ptrdiff_t last, const float *examples, float *scratch)
{
  const struct tensor *in = &program->tensors[op->in], *out = &program->tensors[to];
  const struct tensor *added = &program->tensors[op->other < 0 ? 0 : op->other];
  const struct convolution *c = &op->convolution;
  const struct elementwise *e = &op->elementwise;
  const int has_products = op->kind == CONVOLUTION || op->kind == SQUARES;
  const ptrdiff_t n_together = has_products ? c->n_together : 1;
  for (ptrdiff_t slab = first; slab < last; slab += n_together) {
    const float *read = slab_of(program, op->in, slab, examples, scratch);
    float *written = slab_of(program, to, slab, examples, scratch);
    const float *other =
        op->other < 0 ? NULL : slab_of(program, op->other, slab, examples, scratch);
    if (op->kind == POOLING)
      program->set->pool(&op->pooling, read, written);
    else if (op->kind == ELEMENTWISE) {
      const int has_other = !e->is_pair || draws->column[draw] >= 0;
      program->set->combine(e, e->scale + set * e->n_channels, e->shift + set * e->n_channels,
                            draws->sign[draw], read, has_other ? other : NULL, written);
    } else {
      const struct sums sums = {
          .values = c->values + set * c->n_values,
          .scale = c->scale + set * c->n_filters,
          .shift = c->shift + set * c->n_filters,
          .out_channel = out->channel_stride,
          .other_channel = added->channel_stride,
          .bounds = c->bounds,
      };
      const struct slabs slabs = {last - slab < n_together ? last - slab : n_together,
                                  in->slab_stride,    out->slab_stride,   added->slab_stride,
                                  out->column_stride, added->column_stride};
      (op->kind == SQUARES ? program->set->convolve_squares : program->set->convolve)(
          c, &sums, &slabs, read, written, other, scratch + c->room);
    }
  }
}

/* A group of slabs, of which n have examples, in some draws: out[draw][output][example]. */
static void run_group(const struct program *program, const struct draws *draws,
                      const float *examples, ptrdiff_t n_slabs, float *scratch, float *out,
                      ptrdiff_t out_columns)
{
  ptrdiff_t column = -1;
  for (ptrdiff_t at = 0; at < program->n_shared; at++)
    run_operation(program, &program->operations[at], program->operations[at].out, 0, draws, 0, 0,
                  n_slabs, examples, scratch);
  for (ptrdiff_t draw = 0; draw < draws->n; draw++) {
    const int is_new = draws->column[draw] >= 0 && draws->column[draw] != column;
    if (is_new)
      column = draws->column[draw];
    for (ptrdiff_t at = 0; is_new && at < program->n_shared; at++)
      run_operation(program, &program->operations[at], program->operations[at].noise, 1 + column,
                    draws, draw, 0, n_slabs, examples, scratch);
    const struct operation *operations = program->operations + program->n_shared;
    const ptrdiff_t n = program->n_operations - program->n_shared;
    for (ptrdiff_t slab = 0; slab < n_slabs; slab++)
      for (ptrdiff_t at = 0; at < program->n_narrow; at++)
        run_operation(program, &operations[at], operations[at].out, draw, draws, draw, slab,
                      slab + 1, examples, scratch);
    for (ptrdiff_t at = program->n_narrow; at < n; at++)
      run_operation(program, &operations[at], operations[at].out, draw, draws, draw, 0,
                    n_slabs, examples, scratch);
    for (ptrdiff_t slab = 0; slab < n_slabs; slab++) {
      const float *result = slab_of(program, program->result, slab, examples, scratch);
      for (ptrdiff_t at = 0; at < program->n_outputs; at++)
        memcpy(out + (draw * program->n_outputs + at) * out_columns + slab * SLAB,
               result + program->outputs[at], SLAB * sizeof *out);
    }
  }
}

/* Outputs of groups first..last of slabs in some draws: out[draw][output][example].

   shared: convolutions of the examples that are made once at the mean, and once for each noise.
   The first n_narrow of the other operations work slab by slab, so that their tensors are few. */
static PyObject *run_graph(PyObject *self, PyObject *args)
{
  const char *name;
  PyObject *slabs, *tensors, *shared, *others, *columns, *signs, *outputs, *out_object, *scratch;
  Py_ssize_t n_columns, first, last, group_stride, n_slabs;
  struct program *program = PyMem_RawCalloc(1, sizeof *program);
  if (!program)
    return PyErr_NoMemory();
  struct buffers buffers;
  buffers.n = 0;
  struct draws draws;
  PyObject *result = NULL;
  if (!PyArg_ParseTuple(args, "sOnOO!O!nOOnnOOOnnnn", &name, &slabs, &program->n_in, &tensors,
                        &PyTuple_Type, &shared, &PyTuple_Type, &others, &program->n_narrow,
                        &columns, &signs, &n_columns, &program->result, &outputs, &out_object,
                        &scratch, &first, &last, &group_stride, &n_slabs) ||
      !(program->set = set_of(name)) || !take_draws(columns, signs, n_columns, &draws))
    goto end;
  float *room = numbers_of(&buffers, scratch, 'f', 1, 0);
  program->n_scratch = room ? n_taken(&buffers) : 0;
  const int64_t *numbers = room ? numbers_of(&buffers, tensors, 'l', 0, 0) : NULL;
  if (!numbers || !take_tensors(numbers, n_taken(&buffers), program) ||
      !take_operations(&buffers, shared, others, 1 + n_columns, draws.n, program) ||
      !is_tensor(program, program->result, 0) ||
      !(program->outputs = numbers_of(&buffers, outputs, 'i', 0, 1)))
    goto end;
  program->n_outputs = n_taken(&buffers);
  if (!are_inside(program, program->result, span_of(program->outputs, program->n_outputs, 1)))
    goto end;
  if (first < 0 || last < first || program->n_narrow < 0 ||
      program->n_narrow > program->n_operations - program->n_shared) {
    PyErr_SetString(PyExc_ValueError, "no such groups");
    goto end;
  }
  const float *examples = numbers_of(&buffers, slabs, 'f', 0,
                                     last ? plus(times(last - 1, group_stride), program->n_in) : 0);
  float *out = NULL;
  const ptrdiff_t n_rows = times(draws.n, program->n_outputs);
  if (examples && (out = numbers_of(&buffers, out_object, 'f', 1, times(times(n_rows, last), GROUP_EXAMPLES)))) {
    const ptrdiff_t n_all = n_taken(&buffers) / n_rows;
    Py_BEGIN_ALLOW_THREADS;
    for (ptrdiff_t group = first; group < last; group++) {
      const ptrdiff_t n_left = n_slabs - group * GROUP_SLABS;
      run_group(program, &draws, examples + group * group_stride,
                n_left < GROUP_SLABS ? n_left : GROUP_SLABS, room, out + group * GROUP_EXAMPLES,
                n_all);
    }
    Py_END_ALLOW_THREADS;
    result = Py_NewRef(Py_None);
  }
end:
  PyMem_RawFree(program->operations);
  PyMem_RawFree(program);
  give_back(&buffers);
  return result;
}
