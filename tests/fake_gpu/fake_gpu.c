/* A stand-in for an NVIDIA GPU: the functions of libcuda, libcublas, libcurand and libcudnn that logitcask's CUDA students
 * call, done on the host, slowly and by definition. tests/fake_gpu.sh puts it in place of those libraries and runs the
 * tests of the CUDA build, so that what happens between a test and cuDNN (devices, layouts, descriptors, the order of
 * arguments) is tested on machines without a GPU. Whether cuDNN itself agrees is for `make gpu-check`.
 *
 * Device memory is host memory, streams are ignored, and every call is done when it returns. A kernel is known by its
 * name; its arguments are those in candle-kernels 0.11's .cu files. What is not here says so and fails. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 801 };
typedef uint64_t ptr_t; /* CUdeviceptr */

/* ---- libcuda ---- */
int cuInit(unsigned flags) { return OK; }
int cuGetErrorName(int error, const char **name) { return *name = "CUDA_ERROR_OF_THE_FAKE_GPU", OK; }
int cuGetErrorString(int error, const char **text) { return *text = "the fake GPU cannot do this", OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? OK : 101; }
int cuDeviceGetCount(int *n) { return *n = 1, OK; }
int cuDeviceGetName(char *name, int len, int device) { return snprintf(name, len, "fake GPU"), OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return *value = 0, OK; } /* no memory pools */
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)1, OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
static __thread void *current;
int cuCtxGetCurrent(void **context) { return *context = current, OK; }
int cuCtxSetCurrent(void *context) { return current = context, OK; }
int cuCtxSynchronize(void) { return OK; }
int cuStreamSynchronize(void *stream) { return OK; }
int cuStreamCreate(void **stream, unsigned flags) { return *stream = (void *)2, OK; }
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
int cuStreamIsCapturing(void *stream, int *status) { return *status = 0, OK; }
int cuEventCreate(void **event, unsigned flags) { return *event = (void *)3, OK; }
int cuEventDestroy_v2(void *event) { return OK; }
int cuEventRecord(void *event, void *stream) { return OK; }
int cuEventSynchronize(void *event) { return OK; }

/* Fresh memory is full of NaN, so that whatever is read before it is written shows. */
int cuMemAlloc_v2(ptr_t *memory, size_t bytes) {
    void *fresh = malloc(bytes ? bytes : 1);
    memset(fresh, 0xff, bytes);
    return *memory = (ptr_t)fresh, OK;
}
int cuMemAllocAsync(ptr_t *memory, size_t bytes, void *stream) { return cuMemAlloc_v2(memory, bytes); }
int cuMemFree_v2(ptr_t memory) { return free((void *)memory), OK; }
int cuMemFreeAsync(ptr_t memory, void *stream) { return cuMemFree_v2(memory); }
static int copy(void *to, const void *from, size_t bytes) { return memcpy(to, from, bytes), OK; }
int cuMemcpyHtoDAsync_v2(ptr_t to, const void *from, size_t bytes, void *s) { return copy((void *)to, from, bytes); }
int cuMemcpyDtoHAsync_v2(void *to, ptr_t from, size_t bytes, void *s) { return copy(to, (void *)from, bytes); }
int cuMemcpyDtoDAsync_v2(ptr_t to, ptr_t from, size_t bytes, void *s) { return copy((void *)to, (void *)from, bytes); }
int cuMemsetD8Async(ptr_t to, unsigned char value, size_t n, void *s) { return memset((void *)to, value, n), OK; }

int cuModuleLoadData(void **module, const void *image) { return *module = (void *)4, OK; }
int cuModuleUnload(void *module) { return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    return *function = strdup(name), OK; /* never freed: a handful of names per process */
}

/* ---- kernels ---- */
#define ARG(type, i) (*(type *)args[i])

/* Where element i of a shape lies. */
static size_t at(size_t i, size_t n_dims, const size_t *dims, const size_t *strides) {
    size_t place = 0;
    for (size_t d = n_dims; d-- > 0; i /= dims[d]) place += i % dims[d] * strides[d];
    return place;
}

static int unary(const char *op, float x, float *y) {
    if (!strcmp(op, "copy")) *y = x;
    else if (!strcmp(op, "neg")) *y = -x;
    else if (!strcmp(op, "recip")) *y = 1 / x;
    else if (!strcmp(op, "exp")) *y = expf(x);
    else if (!strcmp(op, "log")) *y = logf(x);
    else if (!strcmp(op, "sqr")) *y = x * x;
    else if (!strcmp(op, "sqrt")) *y = sqrtf(x);
    else if (!strcmp(op, "relu")) *y = x > 0 ? x : 0;
    else if (!strcmp(op, "erf")) *y = erff(x);
    else if (!strcmp(op, "gelu_erf")) *y = x * 0.5f * (1 + erff(x * (float)M_SQRT1_2));
    else return NOT_SUPPORTED;
    return OK;
}

static int binary(const char *op, float x, float y, float *z) {
    if (!strcmp(op, "add")) *z = x + y;
    else if (!strcmp(op, "sub")) *z = x - y;
    else if (!strcmp(op, "mul")) *z = x * y;
    else if (!strcmp(op, "div")) *z = x / y;
    else if (!strcmp(op, "maximum")) *z = x > y ? x : y;
    else if (!strcmp(op, "minimum")) *z = x < y ? x : y;
    else return NOT_SUPPORTED;
    return OK;
}

static int compare(const char *op, float x, float y, uint8_t *z) {
    if (!strcmp(op, "eq")) *z = x == y;
    else if (!strcmp(op, "ne")) *z = x != y;
    else if (!strcmp(op, "lt")) *z = x < y;
    else if (!strcmp(op, "le")) *z = x <= y;
    else if (!strcmp(op, "gt")) *z = x > y;
    else if (!strcmp(op, "ge")) *z = x >= y;
    else return NOT_SUPPORTED;
    return OK;
}

static int launch(const char *name, void **args) {
    char op[64];
    snprintf(op, sizeof op, "%s", name);
    char *type = strrchr(op, '_');
    if (!type) return NOT_SUPPORTED;
    *type++ = 0;

    if (!strcmp(op, "copy2d")) {
        size_t width = !strcmp(type, "f32") || !strcmp(type, "u32") ? 4 : !strcmp(type, "u8") ? 1 : 8;
        char *from = ARG(char *, 0), *to = ARG(char *, 1);
        uint32_t rows = ARG(uint32_t, 2), columns = ARG(uint32_t, 3);
        uint32_t from_stride = ARG(uint32_t, 4), to_stride = ARG(uint32_t, 5);
        for (size_t row = 0; row < rows; row++)
            memcpy(to + row * to_stride * width, from + row * from_stride * width, columns * width);
        return OK;
    }
    size_t n = ARG(size_t, 0);
    if (!strcmp(op, "fast_sum") || !strcmp(op, "fast_max") || !strcmp(op, "fast_sum_small")) {
        if (strcmp(type, "f32")) return NOT_SUPPORTED;
        size_t each = ARG(size_t, 1), n_dims = ARG(size_t, 2), *info = ARG(size_t *, 3);
        float *x = ARG(float *, 4), *y = ARG(float *, 5);
        size_t outputs = !strcmp(op, "fast_sum_small") ? n : n / each;
        for (size_t o = 0; o < outputs; o++) {
            double sum = 0;
            float largest = -INFINITY;
            for (size_t i = 0; i < each; i++) {
                float value = x[at(o * each + i, n_dims, info, info + n_dims)];
                sum += value;
                if (value > largest) largest = value;
            }
            y[o] = !strcmp(op, "fast_max") ? largest : (float)sum;
        }
        return OK;
    }
    size_t n_dims = ARG(size_t, 1), *info = ARG(size_t *, 2); /* no info: contiguous */
    if (!strcmp(op, "where_u8") && !strcmp(type, "f32")) {
        uint8_t *which = ARG(uint8_t *, 3);
        float *yes = ARG(float *, 4), *no = ARG(float *, 5), *y = ARG(float *, 6);
        for (size_t i = 0; i < n; i++)
            y[i] = which[at(i, n_dims, info, info + n_dims)] ? yes[at(i, n_dims, info, info + 2 * n_dims)]
                                                             : no[at(i, n_dims, info, info + 3 * n_dims)];
        return OK;
    }
#define PLACE(strides) (info ? at(i, n_dims, info, info + (strides)*n_dims) : i)
    if (!strcmp(op, "ucopy") && !strcmp(type, "u8")) {
        for (size_t i = 0; i < n; i++) ARG(uint8_t *, 4)[i] = ARG(uint8_t *, 3)[PLACE(1)];
        return OK;
    }
    if (strcmp(type, "f32")) return NOT_SUPPORTED;
    int status = OK;
    if (!strcmp(op, "affine")) {
        float *x = ARG(float *, 3), *y = ARG(float *, 4), scale = ARG(float, 5), shift = ARG(float, 6);
        for (size_t i = 0; i < n; i++) y[i] = x[PLACE(1)] * scale + shift;
    } else if (!strcmp(op, "const_set")) {
        for (size_t i = 0; i < n; i++) ARG(float *, 4)[PLACE(1)] = ARG(float, 3);
    } else if (op[0] == 'u') {
        for (size_t i = 0; i < n && status == OK; i++)
            status = unary(op + 1, ARG(float *, 3)[PLACE(1)], ARG(float *, 4) + i);
    } else if (op[0] == 'b') {
        for (size_t i = 0; i < n && status == OK; i++)
            status = binary(op + 1, ARG(float *, 3)[PLACE(1)], ARG(float *, 4)[PLACE(2)], ARG(float *, 5) + i);
    } else {
        for (size_t i = 0; i < n && status == OK; i++)
            status = compare(op, ARG(float *, 3)[PLACE(1)], ARG(float *, 4)[PLACE(2)], ARG(uint8_t *, 5) + i);
    }
    return status;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **args, void **extra) {
    int status = launch(function, args);
    if (status) fprintf(stderr, "fake GPU: no kernel `%s`\n", (char *)function);
    return status;
}

/* ---- libcublas: matrices lie column by column ---- */
int cublasCreate_v2(void **handle) { return *handle = (void *)5, OK; }
int cublasDestroy_v2(void *handle) { return OK; }
int cublasSetStream_v2(void *handle, void *stream) { return OK; }
int cublasSetWorkspace_v2(void *handle, void *memory, size_t bytes) { return OK; }
int cublasGemmStridedBatchedEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                               const void *a, int a_type, int lda, long long a_stride, const void *b, int b_type, int ldb,
                               long long b_stride, const void *beta, void *c, int c_type, int ldc, long long c_stride,
                               int batches, int compute_type, int algorithm) {
    if (a_type || b_type || c_type) return 15; /* CUDA_R_32F is 0 */
    for (int batch = 0; batch < batches; batch++)
        for (int j = 0; j < n; j++)
            for (int i = 0; i < m; i++) {
                double sum = 0;
                const float *left = (const float *)a + batch * a_stride, *right = (const float *)b + batch * b_stride;
                for (int l = 0; l < k; l++)
                    sum += (double)left[transpose_a ? l + (size_t)i * lda : i + (size_t)l * lda] *
                           right[transpose_b ? j + (size_t)l * ldb : l + (size_t)j * ldb];
                float *out = (float *)c + batch * c_stride + i + (size_t)j * ldc, before = *(const float *)beta;
                *out = *(const float *)alpha * (float)sum + (before ? before * *out : 0);
            }
    return OK;
}

/* ---- libcurand: made, never asked ---- */
int curandCreateGenerator(void **generator, int type) { return *generator = (void *)6, OK; }
int curandDestroyGenerator(void *generator) { return OK; }
int curandSetStream(void *generator, void *stream) { return OK; }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { return OK; }

/* ---- libcudnn: convolutions by definition ---- */
enum { BAD_PARAM = 2000, CUDNN_NOT_SUPPORTED = 3000, NHWC = 1, FLOAT = 0, CROSS_CORRELATION = 1 };

/* A tensor or a filter: dims as cuDNN names them, (N, C, H, W) or (K, C, R, S); they lie as (N, H, W, C). */
struct shape { int n, c, h, w; };
struct conv { int pad_h, pad_w, stride_h, stride_w, groups, math; };

const char *cudnnGetErrorString(int status) { return "the fake GPU cannot do this"; }
size_t cudnnGetVersion(void) { return 90000; }
int cudnnCreate(void **handle) { return *handle = (void *)7, OK; }
int cudnnDestroy(void *handle) { return OK; }
int cudnnSetStream(void *handle, void *stream) { return OK; }
int cudnnCreateTensorDescriptor(struct shape **made) { return *made = calloc(1, sizeof **made), OK; }
int cudnnDestroyTensorDescriptor(struct shape *old) { return free(old), OK; }
int cudnnCreateFilterDescriptor(struct shape **made) { return cudnnCreateTensorDescriptor(made); }
int cudnnDestroyFilterDescriptor(struct shape *old) { return cudnnDestroyTensorDescriptor(old); }
int cudnnSetTensor4dDescriptor(struct shape *made, int format, int type, int n, int c, int h, int w) {
    if (format != NHWC || type != FLOAT) return CUDNN_NOT_SUPPORTED;
    return *made = (struct shape){n, c, h, w}, OK;
}
int cudnnSetFilter4dDescriptor(struct shape *made, int type, int format, int k, int c, int r, int s) {
    return cudnnSetTensor4dDescriptor(made, format, type, k, c, r, s);
}
int cudnnCreateConvolutionDescriptor(struct conv **made) { return *made = calloc(1, sizeof **made), OK; }
int cudnnDestroyConvolutionDescriptor(struct conv *old) { return free(old), OK; }
int cudnnSetConvolution2dDescriptor(struct conv *made, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                    int dilation_w, int mode, int type) {
    if (dilation_h != 1 || dilation_w != 1 || mode != CROSS_CORRELATION || type != FLOAT) return CUDNN_NOT_SUPPORTED;
    return *made = (struct conv){pad_h, pad_w, stride_h, stride_w, 1, 0}, OK;
}
int cudnnSetConvolutionGroupCount(struct conv *conv, int groups) { return conv->groups = groups, OK; }
int cudnnSetConvolutionMathType(struct conv *conv, int math) { return conv->math = math, OK; }

static int fits(const struct shape *x, const struct shape *w, const struct conv *conv, const struct shape *y) {
    return x->n == y->n && w->c * conv->groups == x->c && w->n == y->c && y->c % conv->groups == 0 &&
           y->h == (x->h + 2 * conv->pad_h - w->h) / conv->stride_h + 1 &&
           y->w == (x->w + 2 * conv->pad_w - w->w) / conv->stride_w + 1;
}

/* Workspaces are asked for, so that they are given; their first and last byte are written. Algorithm 1 is, three times,
 * what logitcask prefers; that of the forward pass is refused for depthwise convolutions, so that heuristics are asked. */
enum { WORKSPACE = 1000 };
static int workspace(const struct shape *x, const struct shape *w, const struct conv *conv, const struct shape *y,
                     size_t *bytes) {
    return *bytes = WORKSPACE, fits(x, w, conv, y) ? OK : BAD_PARAM;
}
int cudnnGetConvolutionForwardWorkspaceSize(void *handle, const struct shape *x, const struct shape *w,
                                            const struct conv *conv, const struct shape *y, int algorithm,
                                            size_t *bytes) {
    if (algorithm == 1 && conv->groups > 1) return CUDNN_NOT_SUPPORTED;
    return workspace(x, w, conv, y, bytes);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *handle, const struct shape *w, const struct shape *y,
                                                 const struct conv *conv, const struct shape *x, int algorithm,
                                                 size_t *bytes) {
    return algorithm == 1 ? workspace(x, w, conv, y, bytes) : CUDNN_NOT_SUPPORTED;
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *handle, const struct shape *x, const struct shape *y,
                                                   const struct conv *conv, const struct shape *w, int algorithm,
                                                   size_t *bytes) {
    return algorithm == 1 ? workspace(x, w, conv, y, bytes) : CUDNN_NOT_SUPPORTED;
}
/* The beginning of cudnnConvolutionFwdAlgoPerf_t. */
struct performance { int algorithm, status; };
int cudnnGetConvolutionForwardAlgorithm_v7(void *handle, const struct shape *x, const struct shape *w,
                                           const struct conv *conv, const struct shape *y, int wanted, int *returned,
                                           struct performance *first) {
    return *first = (struct performance){0, OK}, *returned = 1, fits(x, w, conv, y) ? OK : BAD_PARAM;
}

enum part { OUTPUT, INPUT_GRADIENT, FILTER_GRADIENT };

/* Every product of the convolution; `made` is the one of x, w, y that is computed. */
static int convolve(enum part part, const struct shape *xs, const float *x, const struct shape *ws, const float *w,
                    const struct conv *conv, const struct shape *ys, const float *y, char *scratch, size_t scratch_bytes,
                    const void *alpha, const void *beta, float *made) {
    if (!fits(xs, ws, conv, ys) || scratch_bytes != WORKSPACE) return BAD_PARAM;
    if (*(const float *)alpha != 1 || *(const float *)beta != 0) return CUDNN_NOT_SUPPORTED;
    scratch[0] = scratch[scratch_bytes - 1] = 1;
    const struct shape *shape = part == OUTPUT ? ys : part == INPUT_GRADIENT ? xs : ws;
    size_t len = (size_t)shape->n * shape->c * shape->h * shape->w;
    double *sums = calloc(len, sizeof *sums);
    int per_group = ys->c / conv->groups;
    for (int n = 0; n < ys->n; n++)
        for (int oh = 0; oh < ys->h; oh++)
            for (int ow = 0; ow < ys->w; ow++)
                for (int r = 0; r < ws->h; r++)
                    for (int s = 0; s < ws->w; s++) {
                        int h = oh * conv->stride_h + r - conv->pad_h, v = ow * conv->stride_w + s - conv->pad_w;
                        if (h < 0 || h >= xs->h || v < 0 || v >= xs->w) continue;
                        for (int k = 0; k < ys->c; k++)
                            for (int c = 0; c < ws->c; c++) {
                                size_t in = (((size_t)n * xs->h + h) * xs->w + v) * xs->c + k / per_group * ws->c + c;
                                size_t weight = (((size_t)k * ws->h + r) * ws->w + s) * ws->c + c;
                                size_t out = (((size_t)n * ys->h + oh) * ys->w + ow) * ys->c + k;
                                if (part == OUTPUT) sums[out] += (double)x[in] * w[weight];
                                if (part == INPUT_GRADIENT) sums[in] += (double)y[out] * w[weight];
                                if (part == FILTER_GRADIENT) sums[weight] += (double)y[out] * x[in];
                            }
                    }
    for (size_t i = 0; i < len; i++) made[i] = (float)sums[i];
    return free(sums), OK;
}
int cudnnConvolutionForward(void *handle, const void *alpha, const struct shape *xs, const void *x, const struct shape *ws,
                            const void *w, const struct conv *conv, int algorithm, void *scratch, size_t bytes,
                            const void *beta, const struct shape *ys, void *y) {
    return convolve(OUTPUT, xs, x, ws, w, conv, ys, y, scratch, bytes, alpha, beta, y);
}
int cudnnConvolutionBackwardData(void *handle, const void *alpha, const struct shape *ws, const void *w,
                                 const struct shape *ys, const void *dy, const struct conv *conv, int algorithm,
                                 void *scratch, size_t bytes, const void *beta, const struct shape *xs, void *dx) {
    return convolve(INPUT_GRADIENT, xs, dx, ws, w, conv, ys, dy, scratch, bytes, alpha, beta, dx);
}
int cudnnConvolutionBackwardFilter(void *handle, const void *alpha, const struct shape *xs, const void *x,
                                   const struct shape *ys, const void *dy, const struct conv *conv, int algorithm,
                                   void *scratch, size_t bytes, const void *beta, const struct shape *ws, void *dw) {
    return convolve(FILTER_GRADIENT, xs, x, ws, dw, conv, ys, dy, scratch, bytes, alpha, beta, dw);
}
