/* What the machine can do: fused multiply-adds in registers, on every core, in GFLOP/s.
 *
 *     cc -O3 -march=native -pthread benches/peers/peak.c -o peak && ./peak [SECONDS]
 *
 * Twelve independent chains of vectors are enough to keep every unit busy; nothing touches memory. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float vector __attribute__((vector_size(4 * LANES)));
#define CHAINS 12
#define STEPS 1000

static double seconds = 3;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *work(void *gflop) {
    vector sum[CHAINS] = {0}, a = {0}, b = {0};
    for (int i = 0; i < LANES; i++) {
        a[i] = 0.999f;
        b[i] = 0.001f * i;
    }
    double start = now(), done = 0;
    while (now() - start < seconds) {
        for (int step = 0; step < STEPS; step++)
            for (int chain = 0; chain < CHAINS; chain++)
                sum[chain] = sum[chain] * a + b;
        done += 2.0 * LANES * CHAINS * STEPS;
    }
    volatile float kept = 0;
    for (int chain = 0; chain < CHAINS; chain++)
        kept += sum[chain][0];
    *(double *)gflop = done / (now() - start) / 1e9;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 1) seconds = atof(argv[1]);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t *threads = malloc(cores * sizeof *threads);
    double *rates = malloc(cores * sizeof *rates), sum = 0;
    for (long i = 0; i < cores; i++) pthread_create(&threads[i], NULL, work, &rates[i]);
    for (long i = 0; i < cores; i++) {
        pthread_join(threads[i], NULL);
        sum += rates[i];
    }
    printf("%.1f\n", sum);
    return 0;
}
