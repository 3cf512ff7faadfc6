/* Products of packed power-of-two weights with float32 or int8 activations, one thread; see kernel.py.

   A weight is a 4-bit field and, with `signs`, a sign bit of its own. Fields lie in groups of 64 columns, 32
   bytes a group: byte b holds the field at place b of columns 0 to 31 (low half) and of 32 to 63 (high half).
   Signs lie in blocks of 256 columns, 32 bytes a block: bit 7 - k of byte b is that at place b of columns 32k to
   32k + 31. Within 32 columns, column c is at place PLACE[c]: then fields widened in registers meet
   activations in their own order.

   Two tables of 16 bytes give the low and high byte of a field's value as bfloat16, two more those of its size
   as a 16-bit integer. So sums over int8 activations are sums of shifted integers, and exact. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define AHEAD 4096 /* bytes that fields are fetched ahead */

typedef struct {
    const uint8_t *fields, *signs; /* signs: null where fields hold them */
    const uint8_t (*tables)[16];
    const float *scale, *bias; /* null: ones, zeros */
    int64_t rows, columns;
    float unit; /* what the integer 1 is worth */
} Matrix;

enum { LOW, HIGH, SMALL, LARGE, NEGATIVE }; /* NEGATIVE: 0x81 where a field is negative, else 1 */

enum { PORTABLE, AVX2, AVX_VNNI, AVX512_VNNI };

static const uint8_t PLACE[32] = {0, 2,  4,  6,  16, 18, 20, 22, 1, 3,  5,  7,  17, 19, 21, 23,
                                  8, 10, 12, 14, 24, 26, 28, 30, 9, 11, 13, 15, 25, 27, 29, 31};

INLINE int64_t groups_of(const Matrix *m) { return (m->columns + 63) / 64; }
INLINE int64_t blocks_of(const Matrix *m) { return (m->columns + 255) / 256; }
INLINE const uint8_t *fields_of(const Matrix *m, int64_t row) { return m->fields + row * groups_of(m) * 32; }
INLINE const uint8_t *signs_of(const Matrix *m, int64_t row) {
    return m->signs ? m->signs + row * blocks_of(m) * 32 : 0;
}
INLINE float finished(const Matrix *m, int64_t row, float sum) {
    return sum * (m->scale ? m->scale[row] : 1.0f) + (m->bias ? m->bias[row] : 0.0f);
}

/* One weight at a time, for every machine. */

INLINE int field_at(const Matrix *m, int64_t row, int64_t c, int *negative) {
    int place = PLACE[c % 32], half = (int)(c / 32 % 2);
    int field = fields_of(m, row)[c / 64 * 32 + place] >> (4 * half) & 15;
    *negative = m->signs ? signs_of(m, row)[c / 256 * 32 + place] >> (7 - c / 32 % 8) & 1 : m->tables[NEGATIVE][field] >> 7;
    return field;
}

static float weight_at(const Matrix *m, int64_t row, int64_t c) {
    int negative, field = field_at(m, row, c, &negative);
    uint32_t bits = (uint32_t)m->tables[HIGH][field] << 24 | (uint32_t)m->tables[LOW][field] << 16;
    float value;
    if (m->signs && negative) bits |= 0x80000000u;
    memcpy(&value, &bits, 4);
    return value;
}

static void floats_portable(const Matrix *m, const float *x, int64_t stride, int count, float *y) {
    for (int64_t row = 0; row < m->rows; row++)
        for (int i = 0; i < count; i++) {
            float sum = 0;
            for (int64_t c = 0; c < m->columns; c++) sum += weight_at(m, row, c) * x[i * stride + c];
            y[i * m->rows + row] = finished(m, row, sum);
        }
}

static void sums_portable(const Matrix *m, const int8_t *x, int64_t stride, int count, int64_t *sums) {
    for (int64_t row = 0; row < m->rows; row++)
        for (int i = 0; i < count; i++) {
            int64_t sum = 0;
            for (int64_t c = 0; c < m->columns; c++) {
                int negative, field = field_at(m, row, c, &negative);
                int64_t part = (int64_t)(m->tables[SMALL][field] | m->tables[LARGE][field] << 8) * x[i * stride + c / 32 * 32 + PLACE[c % 32]];
                sum += negative ? -part : part;
            }
            sums[i * m->rows + row] = sum;
        }
}

static void decoded_portable(const Matrix *m, int64_t row, float *out) {
    for (int64_t c = 0; c < m->columns; c++) out[c] = weight_at(m, row, c) * (m->scale ? m->scale[row] : 1.0f);
}

static void placed_portable(const int8_t *x, int64_t first, int64_t columns, int8_t *to) {
    for (int64_t c = first; c < columns; c++) to[(c & ~31) + PLACE[c & 31]] = x[c];
}

/* What sums of whole numbers are worth. */
static void valued_portable(const Matrix *m, const int64_t *sums, float step, int64_t first, float *y) {
    for (int64_t row = first; row < m->rows; row++)
        y[row] = finished(m, row, (float)((double)sums[row] * m->unit * step));
}

static float inverted(float most) {
    const float by = 127.0f / most;
    return by < __builtin_inff() ? by : 0;
}

/* Nearest whole numbers of x / step, step = max |x| / 127; below 0 where an x is not finite. All are zero where x is
   all zeros, or so near that a step cannot be inverted. */
static float rounded_portable(const float *x, int64_t columns, int8_t *to) {
    float most = 0, bad = 0;
    for (int64_t c = 0; c < columns; c++) {
        float size = x[c] < 0 ? -x[c] : x[c];
        most = size > most ? size : most;
        bad += x[c] * 0.0f;
    }
    if (bad != 0 || bad != bad) return -1;
    const float by = inverted(most);
    for (int64_t c = 0; c < columns; c++) to[c] = (int8_t)__builtin_lrintf(x[c] * by);
    return most / 127.0f;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_NO_FMA __attribute__((target("avx2"))) /* else products and sums would be rounded once */
#define TARGET_AVX_VNNI __attribute__((target("avx2,fma,avxvnni")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni,avx2,fma")))
#define BYTES(table) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table)))
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))

/* 32 fields of a group, low or high halves. */
#define FIELDS(word, half) _mm256_and_si256((half) ? _mm256_srli_epi16(word, 4) : (word), nibble)

/* 32 weights as four vectors of float32, columns in order; the next signs move to the top bits. */
#define WIDEN(field)                                                       \
    __m256i high_ = _mm256_shuffle_epi8(high, field), low_ = _mm256_shuffle_epi8(low, field); \
    if (signed_) {                                                         \
        high_ = _mm256_or_si256(high_, _mm256_and_si256(sign, top));       \
        sign = _mm256_add_epi8(sign, sign);                                \
    }                                                                      \
    __m256i a_ = _mm256_unpacklo_epi8(low_, high_), b_ = _mm256_unpackhi_epi8(low_, high_); \
    __m256 w0 = _mm256_castsi256_ps(_mm256_slli_epi32(a_, 16)), w1 = _mm256_castsi256_ps(_mm256_and_si256(a_, upper)); \
    __m256 w2 = _mm256_castsi256_ps(_mm256_slli_epi32(b_, 16)), w3 = _mm256_castsi256_ps(_mm256_and_si256(b_, upper));

#define CONSTANTS                                                                       \
    const __m256i low = BYTES(m->tables[LOW]), high = BYTES(m->tables[HIGH]), nibble = _mm256_set1_epi8(15); \
    const __m256i top = _mm256_set1_epi8((char)0x80), upper = _mm256_set1_epi32((int)0xFFFF0000u); \
    const int64_t groups = groups_of(m);

TARGET_AVX2 INLINE float added(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* The eight sums of `little` and 256 times those of `much`, in 64 bits. */
TARGET_AVX2 INLINE int64_t added_whole(__m256i little, __m256i much) {
    __m256i a = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(little)), _mm256_cvtepi32_epi64(_mm256_extracti128_si256(little, 1)));
    __m256i b = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(much)), _mm256_cvtepi32_epi64(_mm256_extracti128_si256(much, 1)));
    a = _mm256_add_epi64(a, _mm256_slli_epi64(b, 8));
    __m128i s = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(s, _mm_unpackhi_epi64(s, s)));
}

/* `count` and `signed_` are constants where this is inlined. Columns of x are padded with zeros to groups. */
TARGET_AVX2 INLINE void floats_avx2(const Matrix *m, const float *x, int64_t stride, const int count, const int signed_, float *y) {
    CONSTANTS
    for (int64_t row = 0; row < m->rows; row++) {
        const uint8_t *fields = fields_of(m, row), *signs = signs_of(m, row);
        __m256 sum[4][4];
        __m256i sign = _mm256_setzero_si256();
        for (int i = 0; i < count; i++)
            for (int j = 0; j < 4; j++) sum[i][j] = _mm256_setzero_ps();
        for (int64_t g = 0; g < groups; g++) {
            const __m256i word = LOAD(fields + g * 32);
            _mm_prefetch((const char *)(fields + g * 32 + AHEAD), _MM_HINT_T0);
            if (signed_ && g % 4 == 0) sign = LOAD(signs + g * 8);
            for (int half = 0; half < 2; half++) {
                const float *at = x + g * 64 + half * 32;
                WIDEN(FIELDS(word, half))
                for (int i = 0; i < count; i++, at += stride) {
                    sum[i][0] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(at), sum[i][0]);
                    sum[i][1] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(at + 8), sum[i][1]);
                    sum[i][2] = _mm256_fmadd_ps(w2, _mm256_loadu_ps(at + 16), sum[i][2]);
                    sum[i][3] = _mm256_fmadd_ps(w3, _mm256_loadu_ps(at + 24), sum[i][3]);
                }
            }
        }
        for (int i = 0; i < count; i++) {
            __m256 all = _mm256_add_ps(_mm256_add_ps(sum[i][0], sum[i][1]), _mm256_add_ps(sum[i][2], sum[i][3]));
            y[i * m->rows + row] = finished(m, row, added(all));
        }
    }
}

/* Sums of four products at a time: |w| is at most 128 and |x| at most 127, so pairs stay within 16 bits. */
#define DOT_AVX2(sum, size, x) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), _mm256_set1_epi16(1)))
#define DOT_AVX_VNNI(sum, size, x) _mm256_dpbusd_avx_epi32(sum, size, x)

/* Small and large sizes are summed apart; a sum stays within 32 bits up to 2^20 columns. */
#define SUMS_256(NAME, TARGET, DOT)                                                                             \
    TARGET INLINE void NAME(const Matrix *m, const int8_t *x, int64_t stride, const int count, const int signed_, \
                            int64_t *sums) {                                                                    \
        const __m256i small = BYTES(m->tables[SMALL]), large = BYTES(m->tables[LARGE]), negative = BYTES(m->tables[NEGATIVE]);          \
        const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi8(1);                                 \
        const int64_t groups = groups_of(m);                                                                    \
        for (int64_t row = 0; row < m->rows; row++) {                                                           \
            const uint8_t *fields = fields_of(m, row), *signs = signs_of(m, row);                               \
            __m256i little[4], much[4], sign = _mm256_setzero_si256();                                          \
            for (int i = 0; i < count; i++) little[i] = much[i] = _mm256_setzero_si256();                       \
            for (int64_t g = 0; g < groups; g++) {                                                              \
                const __m256i word = LOAD(fields + g * 32);                                                     \
                _mm_prefetch((const char *)(fields + g * 32 + AHEAD), _MM_HINT_T0);                             \
                if (signed_ && g % 4 == 0) sign = LOAD(signs + g * 8);                                          \
                for (int half = 0; half < 2; half++) {                                                          \
                    const __m256i field = FIELDS(word, half), size = _mm256_shuffle_epi8(small, field);         \
                    const __m256i turn = signed_ ? _mm256_or_si256(sign, one) : _mm256_shuffle_epi8(negative, field); \
                    const int8_t *at = x + g * 64 + half * 32;                                                  \
                    for (int i = 0; i < count; i++, at += stride) {                                             \
                        const __m256i turned = _mm256_sign_epi8(LOAD(at), turn);                                \
                        little[i] = DOT(little[i], size, turned);                                               \
                        if (signed_) much[i] = DOT(much[i], _mm256_shuffle_epi8(large, field), turned);         \
                    }                                                                                           \
                    if (signed_) sign = _mm256_add_epi8(sign, sign);                                            \
                }                                                                                               \
            }                                                                                                   \
            for (int i = 0; i < count; i++)                                                                     \
                sums[i * m->rows + row] = added_whole(little[i], much[i]);                                      \
        }                                                                                                       \
    }

SUMS_256(sums_avx2, TARGET_AVX2, DOT_AVX2)
SUMS_256(sums_avx_vnni, TARGET_AVX_VNNI, DOT_AVX_VNNI)

/* Two groups at a time: columns 0 to 31 of both, then 32 to 63 of both. */
TARGET_AVX512 INLINE __m512i both(__m256i first, __m256i second) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

TARGET_AVX512 INLINE void sums_avx512(const Matrix *m, const int8_t *x, int64_t stride, const int count, const int signed_, int64_t *sums) {
    const __m512i small = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)m->tables[SMALL]));
    const __m512i large = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)m->tables[LARGE]));
    const __m512i negative = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)m->tables[NEGATIVE]));
    const __m512i nibble = _mm512_set1_epi8(15), none = _mm512_setzero_si512();
    const int64_t groups = groups_of(m);
    for (int64_t row = 0; row < m->rows; row++) {
        const uint8_t *fields = fields_of(m, row), *signs = signs_of(m, row);
        __m512i little[4], much[4], sign = none;
        for (int i = 0; i < count; i++) little[i] = much[i] = none;
        for (int64_t g = 0; g < groups; g += 2) {
            const int pair = g + 1 < groups;
            const __m256i first = LOAD(fields + g * 32);
            const __m512i word = both(first, pair ? LOAD(fields + g * 32 + 32) : _mm256_setzero_si256());
            _mm_prefetch((const char *)(fields + g * 32 + AHEAD), _MM_HINT_T0);
            if (signed_ && g % 4 == 0) {
                const __m256i block = LOAD(signs + g * 8);
                sign = both(block, _mm256_slli_epi16(block, 2));
            }
            for (int half = 0; half < 2; half++) {
                const __m512i field = _mm512_and_si512(half ? _mm512_srli_epi16(word, 4) : word, nibble);
                const __m512i size = _mm512_shuffle_epi8(small, field);
                const __mmask64 turn = _mm512_movepi8_mask(signed_ ? sign : _mm512_shuffle_epi8(negative, field));
                const int8_t *at = x + g * 64 + half * 32;
                for (int i = 0; i < count; i++, at += stride) {
                    __m512i turned = both(LOAD(at), pair ? LOAD(at + 64) : _mm256_setzero_si256());
                    turned = _mm512_mask_sub_epi8(turned, turn, none, turned);
                    little[i] = _mm512_dpbusd_epi32(little[i], size, turned);
                    if (signed_) much[i] = _mm512_dpbusd_epi32(much[i], _mm512_shuffle_epi8(large, field), turned);
                }
                if (signed_) sign = _mm512_slli_epi16(sign, half ? 3 : 1);
            }
        }
        for (int i = 0; i < count; i++) {
            int64_t sum = 0;
            int32_t part[16];
            _mm512_storeu_si512(part, little[i]);
            for (int j = 0; j < 16; j++) sum += part[j];
            _mm512_storeu_si512(part, much[i]);
            for (int j = 0; j < 16; j++) sum += 256 * (int64_t)part[j];
            sums[i * m->rows + row] = sum;
        }
    }
}

TARGET_AVX2 static void decoded_avx2(const Matrix *m, int64_t row, float *out) {
    CONSTANTS
    const uint8_t *fields = fields_of(m, row), *signs = signs_of(m, row);
    const int signed_ = signs != 0;
    const __m256 scale = _mm256_set1_ps(m->scale ? m->scale[row] : 1.0f);
    __m256i sign = _mm256_setzero_si256();
    for (int64_t g = 0; g < groups; g++) {
        if (signed_ && g % 4 == 0) sign = LOAD(signs + g * 8);
        for (int half = 0; half < 2; half++) {
            const int64_t at = g * 64 + half * 32, rest = m->columns - at;
            float last[32], *to = rest < 32 ? last : out + at;
            if (rest <= 0) break;
            WIDEN(FIELDS(LOAD(fields + g * 32), half))
            _mm256_storeu_ps(to, _mm256_mul_ps(w0, scale));
            _mm256_storeu_ps(to + 8, _mm256_mul_ps(w1, scale));
            _mm256_storeu_ps(to + 16, _mm256_mul_ps(w2, scale));
            _mm256_storeu_ps(to + 24, _mm256_mul_ps(w3, scale));
            if (rest < 32) memcpy(out + at, last, (size_t)rest * 4);
        }
    }
}

/* As rounded_portable, bit for bit. */
TARGET_AVX2 static float rounded_avx2(const float *x, int64_t columns, int8_t *to) {
    const __m256 sign = _mm256_set1_ps(-0.0f), infinite = _mm256_set1_ps(__builtin_inff());
    __m256 most = _mm256_setzero_ps(), finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    float part[8], largest = 0;
    int64_t c = 0;
    for (; c + 8 <= columns; c += 8) {
        const __m256 size = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + c));
        finite = _mm256_and_ps(finite, _mm256_cmp_ps(size, infinite, _CMP_LT_OQ));
        most = _mm256_max_ps(most, size);
    }
    if (_mm256_movemask_ps(finite) != 255) return -1;
    _mm256_storeu_ps(part, most);
    for (int i = 0; i < 8; i++) largest = part[i] > largest ? part[i] : largest;
    for (int64_t rest = c; rest < columns; rest++) {
        const float size = x[rest] < 0 ? -x[rest] : x[rest];
        if (!(size < __builtin_inff())) return -1;
        largest = size > largest ? size : largest;
    }
    const float by = inverted(largest);
    for (c = 0; c + 8 <= columns; c += 8) {
        const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + c), _mm256_set1_ps(by)));
        const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        _mm_storel_epi64((__m128i *)(to + c), _mm_packs_epi16(pairs, pairs));
    }
    for (; c < columns; c++) to[c] = (int8_t)__builtin_lrintf(x[c] * by);
    return largest / 127.0f;
}

/* As placed_portable. */
TARGET_AVX2 static void placed_avx2(const int8_t *x, int64_t columns, int8_t *to) {
    int64_t c = 0;
    for (; c + 32 <= columns; c += 32) {
        const __m128i first = _mm_loadu_si128((const __m128i *)(x + c)), second = _mm_loadu_si128((const __m128i *)(x + c + 16));
        const __m128i even = _mm_unpacklo_epi8(first, _mm_unpackhi_epi64(first, first));
        const __m128i odd = _mm_unpacklo_epi8(second, _mm_unpackhi_epi64(second, second));
        _mm_storeu_si128((__m128i *)(to + c), _mm_unpacklo_epi64(even, odd));
        _mm_storeu_si128((__m128i *)(to + c + 16), _mm_unpackhi_epi64(even, odd));
    }
    placed_portable(x, c, columns, to);
}

/* As valued_portable, bit for bit, for sums below 2^51: these, added to 1.5 * 2^52, are its last bits. */
TARGET_NO_FMA static void valued_avx2(const Matrix *m, const int64_t *sums, float step, float *y) {
    const __m256d far = _mm256_set1_pd(6755399441055744.0), unit = _mm256_set1_pd(m->unit), by = _mm256_set1_pd(step);
    int64_t row = 0;
    for (; row + 4 <= m->rows; row += 4) {
        const __m256i moved = _mm256_add_epi64(LOAD(sums + row), _mm256_castpd_si256(far));
        const __m256d sum = _mm256_sub_pd(_mm256_castsi256_pd(moved), far);
        __m128 value = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_mul_pd(sum, unit), by));
        value = _mm_mul_ps(value, m->scale ? _mm_loadu_ps(m->scale + row) : _mm_set1_ps(1.0f));
        _mm_storeu_ps(y + row, _mm_add_ps(value, m->bias ? _mm_loadu_ps(m->bias + row) : _mm_setzero_ps()));
    }
    valued_portable(m, sums, step, row, y);
}

/* Each number of activations and layout has its own code. */
#define ONE_TO_FOUR(CALL, signed_) \
    switch (count) { case 1: CALL(1, signed_); break; case 2: CALL(2, signed_); break; \
                     case 3: CALL(3, signed_); break; default: CALL(4, signed_); }
#define BOTH_LAYOUTS(CALL) if (m->signs) ONE_TO_FOUR(CALL, 1) else ONE_TO_FOUR(CALL, 0)

#define FLOATS(count, signed_) floats_avx2(m, x, stride, count, signed_, y)
TARGET_AVX2 static void floats_on_avx2(const Matrix *m, const float *x, int64_t stride, int count, float *y) { BOTH_LAYOUTS(FLOATS) }
#define SUMS(count, signed_) sums_avx2(m, x, stride, count, signed_, sums)
TARGET_AVX2 static void sums_on_avx2(const Matrix *m, const int8_t *x, int64_t stride, int count, int64_t *sums) { BOTH_LAYOUTS(SUMS) }
#undef SUMS
#define SUMS(count, signed_) sums_avx_vnni(m, x, stride, count, signed_, sums)
TARGET_AVX_VNNI static void sums_on_avx_vnni(const Matrix *m, const int8_t *x, int64_t stride, int count, int64_t *sums) { BOTH_LAYOUTS(SUMS) }
#undef SUMS
#define SUMS(count, signed_) sums_avx512(m, x, stride, count, signed_, sums)
TARGET_AVX512 static void sums_on_avx512(const Matrix *m, const int8_t *x, int64_t stride, int count, int64_t *sums) { BOTH_LAYOUTS(SUMS) }
#endif

int sutura_level(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    unsigned a = 0, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return PORTABLE;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni")) return AVX512_VNNI;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1 ? AVX_VNNI : AVX2;
#else
    return PORTABLE;
#endif
}

static void floats_at(int level, const Matrix *m, const float *x, int64_t stride, int count, float *y) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level >= AVX2) { floats_on_avx2(m, x, stride, count, y); return; }
#endif
    floats_portable(m, x, stride, count, y);
}

static void sums_at(int level, const Matrix *m, const int8_t *x, int64_t stride, int count, int64_t *sums) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level == AVX512_VNNI) { sums_on_avx512(m, x, stride, count, sums); return; }
    if (level == AVX_VNNI) { sums_on_avx_vnni(m, x, stride, count, sums); return; }
    if (level == AVX2) { sums_on_avx2(m, x, stride, count, sums); return; }
#endif
    sums_portable(m, x, stride, count, sums);
}

static float rounded_at(int level, const float *x, int64_t columns, int8_t *to) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level >= AVX2) return rounded_avx2(x, columns, to);
#endif
    return rounded_portable(x, columns, to);
}

/* y[i] = W x[i] + bias, a row of `columns` floats each; 0, or 1 where there is no memory. */
int sutura_floats(const Matrix *m, const float *x, int64_t batch, float *y, int level) {
    const int64_t stride = groups_of(m) * 64;
    float *padded = calloc((size_t)(4 * stride), 4);
    if (!padded) return 1;
    for (int64_t i = 0; i < batch; i += 4) {
        const int count = batch - i < 4 ? (int)(batch - i) : 4;
        for (int j = 0; j < count; j++)
            memcpy(padded + j * stride, x + (i + j) * m->columns, (size_t)m->columns * 4);
        floats_at(level, m, padded, stride, count, y + i * m->rows);
    }
    free(padded);
    return 0;
}

static void valued_at(int level, const Matrix *m, const int64_t *sums, float step, float *y) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level >= AVX2) { valued_avx2(m, sums, step, y); return; }
#endif
    valued_portable(m, sums, step, 0, y);
}

static void placed_at(int level, const int8_t *x, int64_t columns, int8_t *to) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level >= AVX2) { placed_avx2(x, columns, to); return; }
#endif
    placed_portable(x, 0, columns, to);
}

/* sums[i] = W' x[i] with W' the whole numbers W / unit, exact for |x| <= 127. */
int sutura_sums(const Matrix *m, const int8_t *x, int64_t batch, int64_t *sums, int level) {
    const int64_t stride = groups_of(m) * 64;
    int8_t *padded = calloc((size_t)(4 * stride), 1);
    if (!padded) return 1;
    for (int64_t i = 0; i < batch; i += 4) {
        const int count = batch - i < 4 ? (int)(batch - i) : 4;
        for (int j = 0; j < count; j++) placed_at(level, x + (i + j) * m->columns, m->columns, padded + j * stride);
        sums_at(level, m, padded, stride, count, sums + i * m->rows);
    }
    free(padded);
    return 0;
}

/* y[i] = W round(x[i] / step) * step + bias; 1 without memory, 2 where an activation is not finite. */
int sutura_whole(const Matrix *m, const float *x, int64_t batch, float *y, int level) {
    int64_t *sums = malloc((size_t)m->rows * 4 * 8);
    int8_t *x8 = malloc((size_t)m->columns * 4);
    int failed = !sums || !x8;
    for (int64_t i = 0; i < batch && !failed; i += 4) {
        const int count = batch - i < 4 ? (int)(batch - i) : 4;
        float step[4];
        for (int j = 0; j < count && !failed; j++) {
            step[j] = rounded_at(level, x + (i + j) * m->columns, m->columns, x8 + j * m->columns);
            failed = step[j] < 0 ? 2 : 0;
        }
        if (!failed) failed = sutura_sums(m, x8, count, sums, level);
        for (int j = 0; j < count && !failed; j++)
            valued_at(level, m, sums + j * m->rows, step[j], y + (i + j) * m->rows);
    }
    free(sums);
    free(x8);
    return failed;
}

/* Rows of W, scaled, as float32. */
void sutura_decoded(const Matrix *m, int64_t first, int64_t count, float *out, int level) {
    for (int64_t row = 0; row < count; row++) {
#if defined(__x86_64__) && defined(__GNUC__)
        if (level >= AVX2) { decoded_avx2(m, first + row, out + row * m->columns); continue; }
#endif
        decoded_portable(m, first + row, out + row * m->columns);
    }
}
