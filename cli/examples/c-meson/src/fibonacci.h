#pragma once

/// The number at place n of the sequence 0, 1, 1, 2, ..
unsigned long fibonacci(unsigned n);
