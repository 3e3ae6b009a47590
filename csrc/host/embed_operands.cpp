#include "host/embed_operands.h"

namespace memofast {
namespace {

constexpr int kTypes = EmbedOperands::kTypes, kOffsets = 9, kFeatures[] = {10, 20}, kRng = 30, kSampleKeys = 31;

// One modality's fields, whatever their place; text has no mask and no inner norm, features have nothing added.
struct Fields {
    const Tensor &content, &index, &offsets, &mask, &position, &feature_gamma, &feature_beta, &gamma, &beta,
        &position_ids, &added;
};

Fields fields_of(const Tensor* all, int modality) {
    static const Tensor none;
    if (modality == 0) return {all[2], all[0], all[1], none, all[3], none, none, all[4], all[5], all[6], all[7]};
    const Tensor* own = all + kFeatures[modality - 1];
    return {own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7], own[8], own[9], none};
}

int64_t rows_of(const Fields& own, int modality) { return modality == 0 ? own.index.size[0] : own.content.size[0]; }

bool modality_fits(const Fields& own, int modality, Element type, int64_t width, int64_t bounds) {
    const auto is_vector = [&](const Tensor& vector, Element element) { return vector.is_vector(element, width); };
    if (!own.offsets.is_vector(Element::int32, bounds) || !own.position.is_table(Element::float32, width)) return false;
    if (!is_vector(own.gamma, Element::float32) || !is_vector(own.beta, Element::float32)) return false;
    const int64_t rows = rows_of(own, modality);
    if (own.position_ids && !own.position_ids.is_vector(Element::int32, rows)) return false;
    if (own.added && (!own.added.is_table(Element::float32, width) || own.added.size[0] != rows)) return false;
    if (modality == 0)
        return (own.content.is_table(Element::float32, width) || own.content.is_table(type, width)) &&
            own.index.is_vector(Element::int32, own.index.size[0]);
    if (!is_vector(own.feature_gamma, Element::float32) || !is_vector(own.feature_beta, Element::float32)) return false;
    return own.content.is_table(type, width) && (!own.mask || is_vector(own.mask, type)) &&
        (!own.index || own.index.is_vector(Element::int32, own.content.size[0]));
}

}  // namespace

bool EmbedOperands::fit(Element type, bool dropout, bool on_cuda) const {
    const Tensor &types = tensor[kTypes], &offsets = tensor[kOffsets];
    if (!types.readable(on_cuda)) return false;
    for (const Tensor& one : tensor)
        if (one && one.device != types.device) return false;
    if (type > Element::float16 || !types.is_table(Element::float32, types.size[1]) || types.size[0] != 3) return false;
    if (!offsets.is_vector(Element::int32, offsets.size[0]) || offsets.size[0] == 0) return false;
    for (int modality = 0; modality < 3; ++modality) {
        const Fields own = fields_of(tensor, modality);
        if (modality > 0 && !own.content) continue;
        if (!modality_fits(own, modality, type, types.size[1], offsets.size[0])) return false;
    }
    return !dropout ||
        (tensor[kRng].is_vector(Element::int64, 2) &&
         tensor[kSampleKeys].is_vector(Element::int64, offsets.size[0] - 1));
}

EmbedArguments EmbedOperands::arguments() const {
    EmbedArguments a{};
    a.offsets = tensor[kOffsets].as<int32_t>();
    a.rng = tensor[kRng].as<int64_t>();
    a.sample_keys = tensor[kSampleKeys].as<int64_t>();
    a.samples = tensor[kOffsets].size[0] - 1;
    a.width = tensor[kTypes].size[1];
    a.word_type = Type(tensor[2].element);
    for (int modality = 0; modality < 3; ++modality) {
        const Fields own = fields_of(tensor, modality);
        if (!own.content) continue;
        EmbedModality& m = a.modality[modality];
        m.offsets = own.offsets.as<int32_t>();
        m.index = own.index.as<int32_t>();
        m.content = own.content.data;
        m.mask = own.mask.data;
        m.position = own.position.as<float>();
        m.type = tensor[kTypes].as<float>() + modality * a.width;
        m.feature_gamma = own.feature_gamma.as<float>();
        m.feature_beta = own.feature_beta.as<float>();
        m.gamma = own.gamma.as<float>();
        m.beta = own.beta.as<float>();
        m.position_ids = own.position_ids.as<int32_t>();
        m.added = own.added.as<float>();
        m.rows = rows_of(own, modality);
        m.contents = own.content.size[0];
        m.positions = own.position.size[0];
    }
    return a;
}

bool EmbedGradients::fit(const EmbedOperands& operands, bool on_cuda) const {
    const Tensor& types = operands.tensor[kTypes];
    const int64_t width = types.size[1];
    int64_t rows_of_sums = 3 + 12;  // types and vectors
    for (int modality = 0; modality < 3; ++modality) {
        const Fields own = fields_of(operands.tensor, modality);
        if (own.position_ids && !on_cuda &&
            !position_order[modality].is_array(types, Element::int64, rows_of(own, modality)))
            return false;
        if (!own.content) continue;
        if (!content[modality].is_like(own.content)) return false;
        rows_of_sums += own.position.size[0];
    }
    const Tensor& token_ids = operands.tensor[0];
    const Tensor& given = operands.tensor[7];
    return order.is_array(types, Element::int64, token_ids.size[0]) &&
        sums.is_array(types, Element::float32, rows_of_sums, width) &&
        (!given || added.is_array(types, Element::float32, token_ids.size[0], width));
}

void EmbedGradients::add_to(EmbedArguments& a) const {
    float* next = sums.as<float>();
    const auto take = [&](int64_t rows) {
        float* taken = next;
        next += rows * a.width;
        return taken;
    };
    for (EmbedModality& m : a.modality) m.grad_position = take(m.positions);
    for (EmbedModality& m : a.modality) m.grad_type = take(1);
    for (int modality = 0; modality < 3; ++modality) {
        EmbedModality& m = a.modality[modality];
        m.grad_content = content[modality].data;
        m.position_order = position_order[modality].as<int64_t>();
        if (modality == 0) {
            m.order = order.as<int64_t>();
            m.grad_added = added.as<float>();
        } else {
            m.grad_mask = take(1);
            m.grad_feature_gamma = take(1);
            m.grad_feature_beta = take(1);
        }
        m.grad_gamma = take(1);
        m.grad_beta = take(1);
    }
}

}  // namespace memofast
