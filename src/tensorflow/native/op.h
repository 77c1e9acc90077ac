// What every kernel needs of TensorFlow's C API: inputs, outputs, attributes, registration. Nothing is thrown across it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace bignas {

// One call of a kernel. Inputs and outputs are released at its end.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Call() {
    for (TF_Tensor* tensor : tensors_) TF_DeleteTensor(tensor);
    TF_DeleteStatus(status_);
  }

  TF_Tensor* input(int i) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_);
    return keep(tensor);
  }
  const float* data(TF_Tensor* tensor) { return static_cast<const float*>(TF_TensorData(tensor)); }

  float* output(int i, std::vector<int64_t> shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    TF_Tensor* tensor = TF_AllocateOutput(context_, i, TF_FLOAT, shape.data(), static_cast<int>(shape.size()), n * sizeof(float), status_);
    return tensor ? static_cast<float*>(TF_TensorData(keep(tensor))) : nullptr;
  }

  // Whether all went well so far; tells TensorFlow where not.
  bool ok() {
    if (TF_GetCode(status_) == TF_OK) return true;
    TF_OpKernelContext_Failure(context_, status_);
    return false;
  }

  bool require(bool condition, const char* message) {
    if (!condition) TF_SetStatus(status_, TF_INVALID_ARGUMENT, message);
    return ok();
  }

 private:
  TF_Tensor* keep(TF_Tensor* tensor) {
    if (tensor) tensors_.push_back(tensor);
    return tensor;
  }
  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> tensors_;
};

inline std::vector<int64_t> shapeOf(TF_Tensor* tensor) {
  std::vector<int64_t> shape(TF_NumDims(tensor));
  for (size_t d = 0; d < shape.size(); d++) shape[d] = TF_Dim(tensor, static_cast<int>(d));
  return shape;
}

// Attributes of an op, read once when its kernel is made.
struct Attributes {
  float epsilon = 0;
  bool swish = false;
  int32_t kernel = 0, stride = 0;
};

struct Op {
  const char* name;
  std::initializer_list<const char*> inputs, outputs, attributes;
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
};

inline void unknownShape(TF_ShapeInferenceContext*, TF_Status* status) { TF_SetStatus(status, TF_OK, ""); }

inline void registerOp(const Op& op) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(op.name);
  for (const char* spec : op.attributes) TF_OpDefinitionBuilderAddAttr(definition, spec);
  for (const char* spec : op.inputs) TF_OpDefinitionBuilderAddInput(definition, spec);
  for (const char* spec : op.outputs) TF_OpDefinitionBuilderAddOutput(definition, spec);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, unknownShape);
  TF_RegisterOpDefinition(definition, status);
  if (TF_GetCode(status) == TF_OK) {
    TF_KernelBuilder* kernel =
        TF_NewKernelBuilder(op.name, "CPU", op.create, op.compute, [](void* attributes) { delete static_cast<Attributes*>(attributes); });
    TF_RegisterKernelBuilder(op.name, kernel, status);
  }
  if (TF_GetCode(status) != TF_OK) std::fprintf(stderr, "bignas: op %s is not registered: %s\n", op.name, TF_Message(status));
  TF_DeleteStatus(status);
}

}  // namespace bignas
