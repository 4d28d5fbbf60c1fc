/* An external delegate for tests: it takes float additions of equal shapes, or nothing, and fails or ends the process where it is told to.

   Options: take=add|nothing (nothing), fail=create|prepare|invoke, end=create|prepare|invoke (abort), crash=invoke (a null pointer), entry=none (the delegate has
   no entry that takes operations, as one that was built for another layout of the structures).

   The wheels of the interpreters have no headers, so the structures of TensorFlow Lite's C interface are declared here as far as they are used, in its order. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_OK = 0, STATUS_ERROR = 1, TYPE_FLOAT32 = 1, BUILTIN_ADD = 0, BUILTIN_DELEGATE = 51, RELU = 1, RELU6 = 3 };

typedef struct {
  int count;
  int at[];
} Integers;

typedef struct {
  int type;
  void *values;
  Integers *shape;
  float scale;
  int32_t zero_point;
  int memory;
  size_t bytes;
  const void *mapping;
  const char *name;
  void *delegate;
  int handle;
  bool is_stale, is_variable;
  struct {
    int kind;
    void *parameters;
  } quantization;
  void *sparsity;
  const Integers *signature;
} Tensor;

typedef struct {
  Integers *inputs, *outputs, *intermediates, *temporaries;
  void *state, *options;
  const void *initial;
  int initial_bytes;
  struct Delegate *delegate;
  bool side_effect;
} Node;

struct Context;

typedef struct {
  void *(*init)(struct Context *, const char *, size_t);
  void (*release)(struct Context *, void *);
  int (*prepare)(struct Context *, Node *);
  int (*invoke)(struct Context *, Node *);
  const char *(*label)(const struct Context *, const Node *);
  int32_t builtin;
  const char *custom;
  int version;
  void *external;
  void *(*async)(struct Context *, Node *);
  uint64_t in_place;
} Kernel;

typedef struct Context {
  size_t tensor_count;
  int (*plan_of)(struct Context *, Integers **);
  Tensor *tensors;
  void *subgraph;
  int (*resize)(struct Context *, Tensor *, Integers *);
  void (*report)(struct Context *, const char *, ...);
  int (*add_tensors)(struct Context *, int, int *);
  int (*node_at)(struct Context *, int, Node **, Kernel **);
  int (*replace)(struct Context *, Kernel, const Integers *, struct Delegate *);
} Context;

typedef struct Delegate {
  void *settings;
  int (*prepare)(Context *, struct Delegate *);
  int (*copy_from)(Context *, struct Delegate *, int, Tensor *);
  int (*copy_to)(Context *, struct Delegate *, int, Tensor *);
  void (*release_handle)(Context *, struct Delegate *, int *);
  int64_t flags;
  void *builder;
} Delegate;

typedef struct {
  Delegate *delegate;
  Integers *nodes, *inputs, *outputs;
} Part;

typedef struct {
  bool takes_add, no_entry;
  char fail[12], end[12], crash[12];
} Settings;

/* The runtime gives no memory to a tensor between two additions of one part: `own` holds such a sum. */
typedef struct {
  int left, right, sum, activation;
  float *own;
} Addition;

typedef struct {
  int count;
  Addition additions[];
} Work;

static Settings *settings_of(const Node *node) { return node->delegate->settings; }

static void end_if(const char *wanted, const char *here) {
  if (!strcmp(wanted, here)) abort();
}

static void *begin_part(Context *context, const char *described, size_t bytes) {
  (void)bytes;
  const Part *part = (const Part *)described;
  Work *work = malloc(sizeof *work + part->nodes->count * sizeof(Addition));
  work->count = part->nodes->count;
  for (int i = 0; i < work->count; i++) {
    Node *node;
    Kernel *kernel;
    context->node_at(context, part->nodes->at[i], &node, &kernel);
    work->additions[i] = (Addition){node->inputs->at[0], node->inputs->at[1], node->outputs->at[0], *(int *)node->options, NULL};
  }
  return work;
}

static void release_part(Context *context, void *work) {
  (void)context;
  for (int i = 0; i < ((Work *)work)->count; i++) free(((Work *)work)->additions[i].own);
  free(work);
}

static const float *values_of(const Context *context, const Work *work, int tensor) {
  for (int i = 0; i < work->count; i++)
    if (work->additions[i].sum == tensor && work->additions[i].own) return work->additions[i].own;
  return context->tensors[tensor].values;
}

static int prepare_part(Context *context, Node *node) {
  end_if(settings_of(node)->end, "prepare");
  if (!strcmp(settings_of(node)->fail, "prepare")) {
    context->report(context, "test delegate: the device has no memory left");
    return STATUS_ERROR;
  }
  return STATUS_OK;
}

static int invoke_part(Context *context, Node *node) {
  Work *work = node->state;
  end_if(settings_of(node)->end, "invoke");
  if (!strcmp(settings_of(node)->crash, "invoke")) *(volatile int *)NULL = 1;
  if (!strcmp(settings_of(node)->fail, "invoke")) {
    context->report(context, "test delegate: the device does not answer");
    return STATUS_ERROR;
  }
  for (int i = 0; i < work->count; i++) {
    Addition *add = &work->additions[i];
    const size_t bytes = context->tensors[add->left].bytes;
    float *sum = context->tensors[add->sum].values;
    if (!sum) sum = add->own = realloc(add->own, bytes);
    const float *left = values_of(context, work, add->left), *right = values_of(context, work, add->right);
    for (size_t j = 0; j < bytes / sizeof(float); j++) {
      float value = left[j] + right[j];
      if (add->activation != 0 && value < 0) value = 0;
      if (add->activation == RELU6 && value > 6) value = 6;
      sum[j] = value;
    }
  }
  return STATUS_OK;
}

static bool takes(const Context *context, const Node *node, const Kernel *kernel) {
  if (kernel->builtin != BUILTIN_ADD || node->inputs->count != 2) return false;
  const Tensor *left = &context->tensors[node->inputs->at[0]], *right = &context->tensors[node->inputs->at[1]];
  const int activation = *(int *)node->options;
  return left->type == TYPE_FLOAT32 && right->type == TYPE_FLOAT32 && left->bytes == right->bytes &&
         (activation == 0 || activation == RELU || activation == RELU6);
}

static int prepare(Context *context, Delegate *delegate) {
  const Settings *settings = delegate->settings;
  Integers *plan;
  if (!settings->takes_add) return STATUS_OK;
  if (context->plan_of(context, &plan) != STATUS_OK) return STATUS_ERROR;
  Integers *taken = malloc(sizeof *taken + plan->count * sizeof(int));
  taken->count = 0;
  for (int i = 0; i < plan->count; i++) {
    Node *node;
    Kernel *kernel;
    if (context->node_at(context, plan->at[i], &node, &kernel) == STATUS_OK && takes(context, node, kernel)) taken->at[taken->count++] = plan->at[i];
  }
  Kernel kernel = {.init = begin_part,
                   .release = release_part,
                   .prepare = prepare_part,
                   .invoke = invoke_part,
                   .builtin = BUILTIN_DELEGATE,
                   .custom = "TestDelegate",
                   .version = 1};
  const int status = taken->count ? context->replace(context, kernel, taken, delegate) : STATUS_OK;
  free(taken);
  return status;
}

static bool store(char *place, size_t size, const char *value) {
  if (strlen(value) >= size) return false;
  strcpy(place, value);
  return true;
}

__attribute__((visibility("default"))) Delegate *tflite_plugin_create_delegate(char **names, char **values, size_t count, void (*report)(const char *)) {
  Settings *settings = calloc(1, sizeof *settings);
  bool known = true;
  for (size_t i = 0; i < count && known; i++) {
    if (!strcmp(names[i], "take"))
      settings->takes_add = !strcmp(values[i], "add");
    else if (!strcmp(names[i], "entry"))
      settings->no_entry = !strcmp(values[i], "none");
    else if (!strcmp(names[i], "fail"))
      known = store(settings->fail, sizeof settings->fail, values[i]);
    else if (!strcmp(names[i], "end"))
      known = store(settings->end, sizeof settings->end, values[i]);
    else if (!strcmp(names[i], "crash"))
      known = store(settings->crash, sizeof settings->crash, values[i]);
    else
      known = false;
  }
  end_if(settings->end, "create");
  if (!known || !strcmp(settings->fail, "create")) {
    if (report) report(known ? "test delegate: no device found" : "test delegate: an unknown option");
    free(settings);
    return NULL;
  }
  Delegate *delegate = calloc(1, sizeof *delegate);
  delegate->settings = settings;
  delegate->prepare = settings->no_entry ? NULL : prepare;
  return delegate;
}

__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(Delegate *delegate) {
  if (delegate) free(delegate->settings);
  free(delegate);
}
