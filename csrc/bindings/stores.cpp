// Records of stores, and the memory that batches lie in.
#include <string_view>
#include <tuple>
#include <vector>

#include "bindings/tensors.h"
#include "host/batch_memory.h"
#include "host/gather.h"
#include "host/huge_pages.h"
#include "host/pages.h"

namespace memofast {
namespace {

// The buffer under the tensors of one batch; goes back to the pool when the last of them is gone.
class BatchBuffer {
public:
    explicit BatchBuffer(size_t size) : memory_(take_batch_memory(size)) {
        if (!memory_.data) throw std::bad_alloc();
    }
    BatchBuffer(const BatchBuffer&) = delete;
    ~BatchBuffer() { give_batch_memory_back(memory_); }
    py::buffer_info info() const { return {static_cast<uint8_t*>(memory_.data), py::ssize_t(memory_.size), false}; }

private:
    BatchMemory memory_;
};

using TreeNumbers = std::tuple<Address, int64_t, int64_t, uint64_t, int>;  // as in PageTree

PageTree tree_of(const TreeNumbers& numbers) {
    const auto [map, bytes, page_size, root, depth] = numbers;
    return {at<const uint8_t>(map), bytes, page_size, root, depth};
}

// The keys of a tree, each with its value: int64 [n, 4], offset and size of both; None where the tree is unsound.
py::object entries(const TreeNumbers& numbers, bool sorted) {
    std::vector<Entry> found;
    bool sound;
    {
        const py::gil_scoped_release release;
        sound = list_entries(tree_of(numbers), sorted, &found);
    }
    if (!sound) return py::none();
    return py::bytes(reinterpret_cast<const char*>(found.data()), found.size() * sizeof(Entry));
}

// out: address of int64 [n, 2], offset and size of each key's value; see find_value.
void values(const TreeNumbers& numbers, const py::list& keys, Address out) {
    std::vector<std::string_view> wanted;
    for (const py::handle key : keys) wanted.push_back(key.cast<std::string_view>());
    const PageTree tree = tree_of(numbers);
    Extent* found = at<Extent>(out);
    const py::gil_scoped_release release;
    for (const std::string_view key : wanted) *found++ = find_value(tree, key);
}

// columns: (name, width, padded width, type, address); the rest: addresses of int64 arrays of `count` values.
int64_t gather(Address records, Address sizes, Address rows, Address first_row, int64_t count,
               const py::list& columns) {
    std::vector<GatherColumn> wanted;
    for (const py::handle column : columns) {
        const auto [name, width, padded, type, out] = column.cast<std::tuple<int, int64_t, int64_t, int, Address>>();
        wanted.push_back({name, width, padded, RecordType(type), at<void>(out)});
    }
    const py::gil_scoped_release release;
    return gather_records({at<const uint8_t* const>(records), at<const int64_t>(sizes), at<const int64_t>(rows),
                           at<const int64_t>(first_row), count, wanted.data(), int(wanted.size())});
}

}  // namespace

void bind_stores(py::module_& m) {
    py::class_<BatchBuffer>(m, "BatchBuffer", py::buffer_protocol())
        .def(py::init<size_t>())
        .def_buffer(&BatchBuffer::info);
    m.def("idle_batch_memory", &idle_batch_memory);
    m.def("list_entries", &entries);
    m.def("find_values", &values);
    m.def("gather_records", &gather);
    m.def("advise_huge_pages",
          [](std::uintptr_t data, size_t size) { advise_huge_pages(reinterpret_cast<void*>(data), size); });
    m.def("set_calling_thread_parallelism", &set_calling_thread_parallelism);
}

}  // namespace memofast
