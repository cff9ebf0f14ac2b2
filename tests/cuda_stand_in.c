/* Stands in for libcuda.so.1: events on streams whose work is time that passes.
 *
 * Signatures and numbers are those of the CUDA Driver API. A stream is a place in memory that says
 * until when it is busy; stand_in_work puts work on it. As with the driver, a thread may only use
 * events while their context is current there.
 */
#include <stdlib.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600 };

struct stream { double busy_until_s; };
struct event { double at_s; void *context; };

static char context;
static _Thread_local void *stack[8];
static _Thread_local int depth;
static struct stream default_stream;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static double free_at_s(struct stream *stream) {
    double now = now_s();
    return stream->busy_until_s > now ? stream->busy_until_s : now;
}

static void *current(void) { return depth ? stack[depth - 1] : NULL; }

int cuCtxPushCurrent_v2(void *pushed) {
    if (pushed != &context || depth == 8) return INVALID_CONTEXT;
    stack[depth++] = pushed;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void **popped) {
    if (!depth) return INVALID_CONTEXT;
    *popped = stack[--depth];
    return SUCCESS;
}

int cuCtxGetCurrent(void **found) {
    *found = current();
    return SUCCESS;
}

/* What an application does with its CUDA library. */
void stand_in_make_current(void) {
    if (!depth) stack[depth++] = &context;
}

struct stream *stand_in_stream(void) { return calloc(1, sizeof(struct stream)); }

void stand_in_work(struct stream *stream, double seconds) {
    stream->busy_until_s = free_at_s(stream) + seconds;
}

int cuEventCreate(struct event **event, unsigned int flags) {
    if (!current()) return INVALID_CONTEXT;
    if (flags) return INVALID_HANDLE; /* only events that time are wanted here */
    *event = calloc(1, sizeof(struct event));
    (*event)->context = current();
    return SUCCESS;
}

int cuEventRecord(struct event *event, struct stream *stream) {
    if (!event || event->context != current()) return INVALID_HANDLE;
    event->at_s = free_at_s(stream ? stream : &default_stream);
    return SUCCESS;
}

int cuEventQuery(struct event *event) {
    if (event->context != current()) return INVALID_CONTEXT;
    return now_s() < event->at_s ? NOT_READY : SUCCESS;
}

int cuEventElapsedTime(float *milliseconds, struct event *first, struct event *second) {
    if (first->context != current() || second->context != current()) return INVALID_CONTEXT;
    if (now_s() < first->at_s || now_s() < second->at_s) return NOT_READY;
    *milliseconds = 1e3 * (second->at_s - first->at_s);
    return SUCCESS;
}
