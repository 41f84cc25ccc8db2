#include <stdio.h>

int main(int count, char **arguments) {
    (void)arguments;
    printf("counted %d\n", count - 1);
    return 0;
}
