//! TensorRT's plugin interfaces, for any ⵟ op.
#pragma once

#include "log.h"
#include "yat_op.h"

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

namespace nmn::plugin
{

constexpr char const* kNAMESPACE = "ai.nmn";
constexpr char const* kVERSION = "1";

constexpr int32_t kSUCCESS = 0;
constexpr int32_t kFAILURE = 1;

//! Name and version of the layout of serialized fields. Other versions are refused.
constexpr char const* kLAYOUT_FIELD = "layout";
constexpr int32_t kLAYOUT = 1;

//! One ⵟ layer in a network or an engine.
class YatPlugin final : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuild,
                        public nvinfer1::IPluginV3OneRuntime
{
public:
    YatPlugin(char const* name, std::shared_ptr<YatOp const> op);

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    // IPluginV3OneCore
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs,
        nvinfer1::DataType const* inputTypes, int32_t nbInputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t nbInputs,
        nvinfer1::DimsExprs const* shapeInputs, int32_t nbShapeInputs, nvinfer1::DimsExprs* outputs,
        int32_t nbOutputs, nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut,
        int32_t nbInputs, int32_t nbOutputs) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::DynamicPluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
        nvinfer1::DynamicPluginTensorDesc const* outputs,
        int32_t nbOutputs) const noexcept override;
    int32_t getNbTactics() noexcept override;
    int32_t getValidTactics(int32_t* tactics, int32_t nbTactics) noexcept override;
    char const* getTimingCacheID() noexcept override;
    char const* getMetadataString() noexcept override;

    // IPluginV3OneRuntime
    int32_t setTactic(int32_t tactic) noexcept override;
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t nbInputs,
        nvinfer1::PluginTensorDesc const* out, int32_t nbOutputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc,
        nvinfer1::PluginTensorDesc const* outputDesc, void const* const* inputs,
        void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(
        nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    void load();

    char const* mName;
    std::shared_ptr<YatOp const> mOp;
    FieldWriter mFields;
    std::string mAttributes;
    std::string mTimingCacheId;

    std::vector<int32_t> mTactics; //!< For the types and sizes of the last configurePlugin.
    int32_t mTactic{0};            //!< 0 means to choose without timing.

    std::unique_ptr<IoDescription const> mIo; //!< Types and sizes for enqueue.
    LoadedSteps mSteps{};
    int32_t mProcessors{0};
    std::string mNotLoaded; //!< Why no kernels are loaded; empty if they are.
};

} // namespace nmn::plugin
