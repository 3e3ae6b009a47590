// Records come from a memory map that aligns nothing, so every read is a memcpy;
// the copy is bound by memory, not by arithmetic.
#include "gather.h"

#include <omp.h>

#include <cstring>

namespace memofast {
namespace {

constexpr uint32_t kMagic = 0x5243464Du;  // "MFCR", little-endian
constexpr uint16_t kVersion = 1;

struct Header {
    uint32_t magic;
    uint16_t version, columns;
    uint32_t rows, size;
};

struct Column {
    uint16_t name, type;
    uint32_t width, offset, bytes;
};

static_assert(sizeof(Header) == 16 && sizeof(Column) == 16, "the record layout is fixed");

int64_t size_of(RecordType type) {
    switch (type) {
        case RecordType::float32:
        case RecordType::int32: return 4;
        case RecordType::int64: return 8;
        case RecordType::uint8: return 1;
        default: return 2;
    }
}

bool is_float(RecordType type) { return int(type) <= int(RecordType::float16); }

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

float from_half(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000u) << 16, rest = half & 0x7FFFu;
    const uint32_t normal = (rest << 13) + 0x38000000u + (rest >= 0x7C00u ? 0x38000000u : 0u);
    const uint32_t tiny = bits_of(float(rest) * 0x1p-24f);
    return float_of(sign | (rest < 0x0400u ? tiny : normal));
}

uint16_t to_half(float value) {  // round to nearest even
    const uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7FFFFFFFu;
    if (rest >= 0x7F800000u) return uint16_t(sign | 0x7C00u | (rest > 0x7F800000u ? 0x200u : 0u));
    if (rest >= 0x477FF000u) return uint16_t(sign | 0x7C00u);
    if (rest < 0x38800000u)  // the sum's last bit is 2^-24, the step of halves without exponent
        return uint16_t(sign | (bits_of(float_of(rest) + 0.5f) - 0x3F000000u));
    return uint16_t(sign | ((rest + 0xFFFu + ((rest >> 13) & 1u) - 0x38000000u) >> 13));
}

uint16_t to_bfloat(float value) {  // round to nearest even
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return uint16_t((bits >> 16) | 0x40u);
    return uint16_t((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

template <RecordType type>
float load(const uint8_t* from) {
    if constexpr (type == RecordType::float32) {
        float value;
        std::memcpy(&value, from, 4);
        return value;
    } else {
        uint16_t bits;
        std::memcpy(&bits, from, 2);
        return type == RecordType::float16 ? from_half(bits) : float_of(uint32_t(bits) << 16);
    }
}

template <RecordType type>
void store(uint8_t* to, float value) {
    if constexpr (type == RecordType::float32) {
        std::memcpy(to, &value, 4);
    } else {
        const uint16_t bits = type == RecordType::float16 ? to_half(value) : to_bfloat(value);
        std::memcpy(to, &bits, 2);
    }
}

template <RecordType from, RecordType to>
void convert(uint8_t* out, const uint8_t* in, int64_t count) {
    constexpr int64_t in_size = from == RecordType::float32 ? 4 : 2, out_size = to == RecordType::float32 ? 4 : 2;
    for (int64_t i = 0; i < count; ++i) store<to>(out + i * out_size, load<from>(in + i * in_size));
}

template <RecordType from>
void convert_to(RecordType to, uint8_t* out, const uint8_t* in, int64_t count) {
    if (to == RecordType::float32) return convert<from, RecordType::float32>(out, in, count);
    if (to == RecordType::float16) return convert<from, RecordType::float16>(out, in, count);
    return convert<from, RecordType::bfloat16>(out, in, count);
}

void copy_values(RecordType to, uint8_t* out, RecordType from, const uint8_t* in, int64_t count) {
    if (count == 0) return;  // to nowhere, which memcpy must not be given
    if (from == to) {
        std::memcpy(out, in, size_t(count * size_of(to)));
    } else if (from == RecordType::float32) {
        convert_to<RecordType::float32>(to, out, in, count);
    } else if (from == RecordType::float16) {
        convert_to<RecordType::float16>(to, out, in, count);
    } else {
        convert_to<RecordType::bfloat16>(to, out, in, count);
    }
}

// The named column of a record, checked against its size and what the batch expects.
bool find_column(const uint8_t* record, const Header& header, const GatherColumn& wanted, int64_t rows, Column* found) {
    for (int i = 0; i < header.columns; ++i) {
        std::memcpy(found, record + sizeof(Header) + i * sizeof(Column), sizeof(Column));
        if (found->name != wanted.name) continue;
        if (found->type > uint16_t(RecordType::int16)) return false;
        const RecordType type = RecordType(found->type);
        if (found->width != wanted.width) return false;
        const __int128 values = wanted.width == 0 ? wanted.padded : __int128{rows} * wanted.width;
        return values * size_of(type) == found->bytes &&
               uint64_t(found->offset) + found->bytes <= header.size &&
               (type == wanted.type || (is_float(type) && is_float(wanted.type)));
    }
    return false;
}

void copy_column(const GatherColumn& wanted, const Column& column, const uint8_t* in, int64_t rows, int64_t first,
                 int64_t record) {
    const RecordType type = RecordType(column.type);
    const int64_t size = size_of(wanted.type);
    uint8_t* out = static_cast<uint8_t*>(wanted.out);
    if (wanted.width == 0)
        return copy_values(wanted.type, out + record * wanted.padded * size, type, in, wanted.padded);
    out += first * wanted.padded * size;
    if (wanted.width == wanted.padded) return copy_values(wanted.type, out, type, in, rows * wanted.width);
    const int64_t stride = wanted.width * size_of(type), tail = (wanted.padded - wanted.width) * size;
    for (int64_t row = 0; row < rows; ++row, in += stride, out += wanted.padded * size) {
        copy_values(wanted.type, out, type, in, wanted.width);
        std::memset(out + wanted.width * size, 0, size_t(tail));
    }
}

bool gather_record(const GatherArguments& a, int64_t index) {
    const uint8_t* record = a.records[index];
    Header header;
    if (a.sizes[index] < int64_t(sizeof header)) return false;
    std::memcpy(&header, record, sizeof header);
    if (header.magic != kMagic || header.version != kVersion || header.size != uint64_t(a.sizes[index]) ||
        header.rows != uint64_t(a.rows[index]) || sizeof(Header) + header.columns * sizeof(Column) > header.size)
        return false;
    for (int i = 0; i < a.column_count; ++i) {
        Column column;
        if (!find_column(record, header, a.columns[i], a.rows[index], &column)) return false;
        copy_column(a.columns[i], column, record + column.offset, a.rows[index], a.first_row[index], index);
    }
    return true;
}

}  // namespace

int64_t gather_records(const GatherArguments& a) {
    for (int64_t i = 0; i < a.count; ++i)
        if (!gather_record(a, i)) return i;
    return -1;
}

void set_calling_thread_parallelism(int threads) { omp_set_num_threads(threads); }

}  // namespace memofast
