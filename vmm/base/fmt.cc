// The fmt library's own code, compiled once. Debian has fmt as headers and as a shared library; in
// every file the headers' implementation takes 6 of 7.5 s of compile time, the shared library needs
// the shared libstdc++. These are the instantiations that fmt's other templates refer to.
//
// Numbers are written the same in every locale, and so nothing of libstdc++'s is linked for them:
// what has to be relocated at each start would be half as much again.
#define FMT_STATIC_THOUSANDS_SEPARATOR ','
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {

template FMT_API auto dragonbox::to_decimal(float x) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double x) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API void buffer<char>::append(const char*, const char*);
template FMT_API void vformat_to(buffer<char>&, string_view, format_args, locale_ref);

}  // namespace detail
FMT_END_NAMESPACE
