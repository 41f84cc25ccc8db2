#pragma once

#include <istream>

/// How many words there are in what is read.
std::size_t count_words(std::istream &in);
