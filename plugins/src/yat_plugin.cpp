#include "yat_plugin.h"

#include "sizes.h"

namespace nmn::plugin
{
namespace
{

using nvinfer1::PluginTensorDesc;

Kernel const& byTactic(std::string_view op, int32_t tactic)
{
    for (Kernel const& kernel : kernels())
    {
        if (kernel.op == op && kernel.tactic == tactic)
        {
            return kernel;
        }
    }
    throw refusal("the engine was built with a kernel that this library does not have (tactic ",
        tactic, "); use the library it was built with, or build it again");
}

} // namespace

YatPlugin::YatPlugin(char const* name, std::shared_ptr<YatOp const> op)
    : mName(name), mOp(std::move(op)), mNotLoaded("no supported shapes were set")
{
    mOp->attributes().write(mFields);
    mAttributes = mFields.text();
    mTimingCacheId = mAttributes + " kernels=" + kMANIFEST_HASH;
    mFields.add(kLAYOUT_FIELD, std::vector<int32_t>{kLAYOUT});
}

nvinfer1::IPluginCapability* YatPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept
{
    switch (type)
    {
    case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return guarded(mName, static_cast<nvinfer1::IPluginCapability*>(nullptr),
        [type]() -> nvinfer1::IPluginCapability*
        {
            throw refusal("this TensorRT asks for an interface that the library does not know "
                          "(number ",
                static_cast<int32_t>(type), "); use a library built for it");
        });
}

nvinfer1::IPluginV3* YatPlugin::clone() noexcept
{
    return guarded("clone", static_cast<nvinfer1::IPluginV3*>(nullptr),
        [this]() -> nvinfer1::IPluginV3*
        {
            auto copy = std::make_unique<YatPlugin>(mName, mOp);
            copy->mTactics = mTactics;
            copy->mTactic = mTactic;
            return copy.release();
        });
}

char const* YatPlugin::getPluginName() const noexcept
{
    return mName;
}

char const* YatPlugin::getPluginVersion() const noexcept
{
    return kVERSION;
}

char const* YatPlugin::getPluginNamespace() const noexcept
{
    return kNAMESPACE;
}

int32_t YatPlugin::setTactic(int32_t tactic) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            if (tactic != 0)
            {
                byTactic(mName, tactic);
            }
            mTactic = tactic;
            if (mIo)
            {
                load();
            }
            return kSUCCESS;
        });
}

int32_t YatPlugin::onShapeChange(PluginTensorDesc const* in, int32_t nbInputs,
    PluginTensorDesc const* /*out*/, int32_t /*nbOutputs*/) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            mOp->checkNbInputs(nbInputs);
            auto io = std::make_unique<IoDescription const>(in, nbInputs);
            // TensorRT also calls this if only an address has changed.
            if (mIo && *mIo == *io && mNotLoaded.empty())
            {
                return kSUCCESS;
            }
            mIo.reset();
            mNotLoaded = "no supported shapes were set";
            mOp->checkSizes(*io);
            mIo = std::move(io);
            load();
            return kSUCCESS;
        });
}

//! Load the kernels. A failure is reported by enqueue, not here: a machine without a GPU may set
//! shapes while it builds an engine for another one.
void YatPlugin::load()
{
    try
    {
        Context& context = Context::current();
        mProcessors = context.processors();
        Kernel const& main = mTactic == 0
                                 ? mOp->choose(candidates(mName, *mOp, *mIo), *mIo, mProcessors)
                                 : byTactic(mName, mTactic);
        mSteps = {};
        mSteps.main = context.load(main.name);
        Steps const steps = mOp->steps(*mSteps.main.kernel, *mIo);
        auto const load = [&context](std::string const& name)
        { return name.empty() ? Loaded{} : context.load(name); };
        mSteps.weights = load(steps.weights);
        mSteps.pixels = load(steps.pixels);
        mSteps.norms = load(steps.norms);
        if (!mOp->takes(*mSteps.main.kernel, *mIo))
        {
            throw refusal("kernel ", main.name, " does not take an input of ", toString(mIo->x()));
        }
        mNotLoaded.clear();
    }
    catch (std::exception const& error)
    {
        mNotLoaded = error.what();
    }
}

int32_t YatPlugin::enqueue(PluginTensorDesc const* /*inputDesc*/,
    PluginTensorDesc const* /*outputDesc*/, void const* const* inputs, void* const* outputs,
    void* workspace, cudaStream_t stream) noexcept
{
    return guarded(mName, kFAILURE,
        [&]
        {
            if (!mNotLoaded.empty())
            {
                throw std::runtime_error(mNotLoaded);
            }
            mOp->enqueue(*mIo, mSteps, mProcessors, inputs, outputs[0], workspace, stream);
            return kSUCCESS;
        });
}

nvinfer1::IPluginV3* YatPlugin::attachToContext(
    nvinfer1::IPluginResourceContext* /*context*/) noexcept
{
    return clone();
}

nvinfer1::PluginFieldCollection const* YatPlugin::getFieldsToSerialize() noexcept
{
    return mFields.collection();
}

} // namespace nmn::plugin
