#include "fibonacci.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 10;
    printf("%lu\n", fibonacci(n));
    return 0;
}
