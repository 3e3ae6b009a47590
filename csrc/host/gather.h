// Packing of store records (memofast/store/record.py describes version 1) into the rows of one batch.
#pragma once

#include <cstdint>

namespace memofast {

enum class RecordType : int { float32 = 0, bfloat16 = 1, float16 = 2, int32 = 3, int64 = 4, uint8 = 5, int16 = 6 };

// One column to gather, and where it goes.
struct GatherColumn {
    int name;            // column name id
    int64_t width;       // values per row as stored; 0: a column of the record, without rows
    int64_t padded;      // values per row in the batch, at least width, the rest zero; without rows: values per record
    RecordType type;     // type in the batch; float types are converted, others must be as stored
    void* out;
};

struct GatherArguments {
    const uint8_t* const* records;
    const int64_t* sizes;      // bytes of each record
    const int64_t* rows;       // rows each record must have
    const int64_t* first_row;  // where its rows start in the batch
    int64_t count;
    const GatherColumn* columns;
    int column_count;
};

// Returns -1, or the index of the first record that is not a sound record with these rows and columns.
// Records are checked before any of their values is read; nothing outside the output rows is written.
int64_t gather_records(const GatherArguments& a);

// Makes OpenMP regions entered by the calling thread use this many threads; other threads are not affected.
void set_calling_thread_parallelism(int threads);

}  // namespace memofast
