// The one translation unit that holds Asio's and Beast's own code (CMake defines *_SEPARATE_COMPILATION everywhere else).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
