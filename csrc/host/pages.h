// Records of an LMDB file, found without LMDB. LMDB follows the numbers of a file unchecked, so that a damaged page
// ends the process, and its map cannot grow under readers. Here every number is read once and checked before it is
// followed.
// Source of the layout: LMDB 0.9, data version 1 (mdb.c: MDB_page, MDB_node, mdb_node_search).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace memofast {

// A tree of keys in a file that is mapped into memory.
struct PageTree {
    static constexpr uint64_t kEmpty = ~uint64_t{0};
    const uint8_t* map;
    int64_t bytes;  // of the map
    int64_t page_size;
    uint64_t root;  // number of its first page, or kEmpty
    int depth;      // levels of pages
};

// A piece of the map.
struct Extent {
    static constexpr int64_t kAbsent = -1, kDamaged = -2;
    int64_t offset, size;
};

struct Entry {
    Extent key, value;
};

// Where the value of a key lies; its offset is kAbsent without one, kDamaged where a page on the way is unsound.
Extent find_value(const PageTree& tree, std::string_view key);

// All entries. sorted: their keys must grow, as find_value compares them. False where that or a page is unsound.
bool list_entries(const PageTree& tree, bool sorted, std::vector<Entry>* entries);

}  // namespace memofast
