#include "pages.h"

#include <cstring>

namespace memofast {
namespace {

constexpr int64_t kHeader = 16, kNodeHeader = 8;
constexpr uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4, kKinds = 0x6F;
constexpr uint16_t kInline = 0, kElsewhere = 1;
constexpr uint64_t kMetaPages = 2;
constexpr int kDeepest = 32;

template <class T>
T read(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

struct Node {
    std::string_view key;
    uint32_t low;  // of a leaf: bytes of the value; of a branch: the child's number without its upper 16 bits
    uint16_t flags;
    int64_t value;  // offset in its page

    uint64_t child() const { return low | uint64_t(flags) << 32; }
};

// A page of this number and kind, `ok` where it lies in the map and its header is sound. Another process may write it
// meanwhile, so that whatever was checked is kept.
struct Page {
    const uint8_t* at = nullptr;
    int64_t size, first_node, count = 0;
    bool ok = false;

    Page(const PageTree& tree, uint64_t number, uint16_t kind) : size(tree.page_size) {
        if (number < kMetaPages || number >= uint64_t(tree.bytes / size)) return;
        at = tree.map + int64_t(number) * size;
        if (read<uint64_t>(at) != number || (read<uint16_t>(at + 10) & kKinds) != kind) return;
        const int64_t end = read<uint16_t>(at + 12);  // of the nodes' offsets
        first_node = read<uint16_t>(at + 14);
        count = (end - kHeader) / 2;
        ok = end >= kHeader && end <= first_node && first_node <= size && count > 0;
    }

    bool node(int64_t index, Node* found) const {
        const int64_t start = read<uint16_t>(at + kHeader + 2 * index);
        if (start < first_node || start + kNodeHeader > size) return false;
        found->low = read<uint16_t>(at + start) | uint32_t(read<uint16_t>(at + start + 2)) << 16;
        found->flags = read<uint16_t>(at + start + 4);
        const int64_t length = read<uint16_t>(at + start + 6);
        found->value = start + kNodeHeader + length;
        found->key = {reinterpret_cast<const char*>(at + start + kNodeHeader), size_t(length)};
        return found->value <= size;
    }

    // The first node from `low` on whose key is greater than this one (or_equal: not less); false where one is unsound.
    bool search(std::string_view key, bool or_equal, int64_t low, int64_t* found) const {
        for (int64_t high = count; low < high;) {
            const int64_t middle = (low + high) / 2;
            Node there;
            if (!node(middle, &there)) return false;
            if (or_equal ? there.key < key : there.key <= key)
                low = middle + 1;
            else
                high = middle;
        }
        *found = low;
        return true;
    }
};

Extent value_of(const PageTree& tree, const Page& leaf, const Node& node) {
    const Extent damaged = {Extent::kDamaged, 0};
    if (node.flags == kInline)
        return node.value + node.low <= leaf.size ? Extent{leaf.at - tree.map + node.value, node.low} : damaged;
    if (node.flags != kElsewhere || node.value + int64_t(sizeof(uint64_t)) > leaf.size) return damaged;
    const uint64_t number = read<uint64_t>(leaf.at + node.value), pages = uint64_t(tree.bytes / tree.page_size);
    if (number < kMetaPages || number >= pages) return damaged;
    const int64_t start = int64_t(number) * tree.page_size;
    const uint8_t* page = tree.map + start;
    const uint32_t run = read<uint32_t>(page + 12);
    const bool sound = read<uint64_t>(page) == number && (read<uint16_t>(page + 10) & kKinds) == kOverflow &&
                       run <= pages - number && kHeader + int64_t(node.low) <= run * tree.page_size;
    return sound ? Extent{start + kHeader, node.low} : damaged;
}

Extent extent_of(const PageTree& tree, std::string_view key) {
    return {reinterpret_cast<const uint8_t*>(key.data()) - tree.map, int64_t(key.size())};
}

std::string_view text_of(const PageTree& tree, const Extent& key) {
    return {reinterpret_cast<const char*>(tree.map + key.offset), size_t(key.size)};
}

// pages: how many may still be looked at, so that pages which name each other in a circle come to an end.
bool list_below(const PageTree& tree, uint64_t number, int levels, bool sorted, int64_t* pages,
                std::vector<Entry>* entries) {
    const Page page(tree, number, levels == 1 ? kLeaf : kBranch);
    if (!page.ok || --*pages < 0) return false;
    for (int64_t i = 0; i < page.count; ++i) {
        Node node;
        if (!page.node(i, &node)) return false;
        if (levels > 1) {
            if (!list_below(tree, node.child(), levels - 1, sorted, pages, entries)) return false;
            continue;
        }
        const Entry entry = {extent_of(tree, node.key), value_of(tree, page, node)};
        if (entry.value.offset < 0) return false;
        if (sorted && !entries->empty() && text_of(tree, entries->back().key) >= node.key) return false;
        entries->push_back(entry);
    }
    return true;
}

}  // namespace

Extent find_value(const PageTree& tree, std::string_view key) {
    const Extent damaged = {Extent::kDamaged, 0}, absent = {Extent::kAbsent, 0};
    if (tree.root == PageTree::kEmpty) return absent;
    if (tree.depth < 1 || tree.depth > kDeepest) return damaged;
    uint64_t number = tree.root;
    Node node;
    int64_t found;
    for (int level = 1; level < tree.depth; ++level) {
        const Page page(tree, number, kBranch);
        // a branch's first key stands for all smaller ones and is not looked at
        if (!page.ok || !page.search(key, false, 1, &found) || !page.node(found - 1, &node)) return damaged;
        number = node.child();
    }
    const Page leaf(tree, number, kLeaf);
    if (!leaf.ok || !leaf.search(key, true, 0, &found)) return damaged;
    if (found == leaf.count) return absent;
    if (!leaf.node(found, &node)) return damaged;
    return node.key == key ? value_of(tree, leaf, node) : absent;
}

bool list_entries(const PageTree& tree, bool sorted, std::vector<Entry>* entries) {
    int64_t pages = tree.bytes / tree.page_size;
    if (tree.root == PageTree::kEmpty) return true;
    if (tree.depth < 1 || tree.depth > kDeepest) return false;
    return list_below(tree, tree.root, tree.depth, sorted, &pages, entries);
}

}  // namespace memofast
