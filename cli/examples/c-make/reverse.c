#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        for (size_t n = strlen(argv[i]); n > 0; n--) {
            putchar(argv[i][n - 1]);
        }
        putchar('\n');
    }
    return 0;
}
