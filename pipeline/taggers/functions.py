"""The SQL functions and operators that a predicate may call.

Each gives a value of one row, the same on every machine and at every time, in time and memory linear in its arguments. Left out
are functions that read anything else (files, settings, sequences, the clock, the time zone) and those whose result is as long as
they are told, or whose cost is quadratic: one `replace` within another makes 10^12 characters of a line of YAML, and DuckDB's
memory limit does not hold for constants. Not: comparisons, AND, OR, NOT, IN, BETWEEN, CASE, CAST, coalesce and `list[1]` are no functions.
"""

_NUMBERS = """
    + - * / // % ** ^ & | ~ << >> @ add subtract multiply divide mod pow power abs sign ceil ceiling floor round round_even trunc even
    sqrt cbrt exp ln log log2 log10 gamma lgamma factorial gcd greatest_common_divisor lcm least_common_multiple pi degrees radians
    sin cos tan cot asin acos atan atan2 sinh cosh tanh asinh acosh atanh greatest least xor bit_count isnan isinf isfinite signbit
"""
_TEXT = """
    || concat concat_ws ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape ^@ starts_with prefix ends_with
    suffix contains strpos position instr len length strlen char_length character_length octet_length bit_length length_grapheme
    lower lcase upper ucase trim ltrim rtrim left right left_grapheme right_grapheme substr substring substring_grapheme reverse
    strip_accents nfc_normalize ascii unicode ord chr split str_split string_split string_to_array regexp_matches regexp_full_match
    regexp_extract regexp_extract_all regexp_escape str_split_regex string_split_regex regexp_split_to_array
    url_decode parse_filename parse_dirname parse_dirpath parse_path hash md5 sha1 sha256 hex to_hex bin to_binary
"""
_COLLECTIONS = """
    list_value list_pack list_contains list_has array_contains array_has list_position list_indexof array_position array_indexof
    array_length cardinality list_extract list_element array_extract element_at list_slice array_slice list_concat list_cat array_concat
    array_cat row struct_pack struct_extract struct_extract_at map map_contains map_extract map_extract_value map_keys map_values
    json_extract json_extract_path json_extract_string json_extract_path_text ->> json_exists json_contains json_array_length
    json_type json_valid json_keys json_value
"""
_DATES = """
    year month day hour minute second millisecond microsecond quarter week weekday weekofyear yearweek dayofweek dayofmonth dayofyear
    dayname monthname isodow isoyear decade century millennium era julian epoch epoch_ms epoch_us epoch_ns date_part datepart date_diff
    datediff date_sub datesub date_trunc datetrunc last_day make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns
    strptime try_strptime to_years to_quarters to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds
"""
FUNCTIONS = frozenset(f"{_NUMBERS} {_TEXT} {_COLLECTIONS} {_DATES}".split())
