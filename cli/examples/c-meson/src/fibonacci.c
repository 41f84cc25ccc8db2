#include "fibonacci.h"

unsigned long fibonacci(unsigned n) {
    unsigned long a = 0, b = 1;
    while (n--) {
        unsigned long next = a + b;
        a = b;
        b = next;
    }
    return a;
}
