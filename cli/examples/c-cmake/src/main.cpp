#include "count.h"

#include <iostream>
#include <thread>

int main() {
    std::size_t count = 0;
    std::thread worker([&] { count = count_words(std::cin); });
    worker.join();
    std::cout << count << '\n';
}
