// Restores raw frames, bytes in and bytes out, with a graph of `measnet-export --io uint8-nhwc`.
//
//   cmake -S examples/cpp -B build && cmake --build build
//   ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - | build/restore nano-dynamic.bytes.onnx 360 640 |
//     ffmpeg -f rawvideo -pix_fmt rgb24 -s 640x360 -r 25 -i - out.mp4
//
// The last two arguments are the frames' height and width; ffmpeg's -s is width x height.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

class Restorer {
 public:
  explicit Restorer(const char* graph) : session_(env_, graph, Ort::SessionOptions{}) {}

  // frame: height * width * 3 bytes; what comes back holds as many, and is the caller's.
  Ort::Value operator()(std::vector<uint8_t>& frame, int64_t height, int64_t width) {
    const std::array<int64_t, 4> shape{1, height, width, 3};
    const char* inputs[] = {"image"};
    const char* outputs[] = {"restored"};  // the others are not asked for
    Ort::Value image =
        Ort::Value::CreateTensor<uint8_t>(memory_, frame.data(), frame.size(), shape.data(), shape.size());
    return std::move(session_.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 1)[0]);
  }

 private:
  Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "measnet"};
  Ort::Session session_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
};

int main(int count, char** words) {
  const int64_t height = count == 4 ? std::atoll(words[2]) : 0, width = count == 4 ? std::atoll(words[3]) : 0;
  if (height < 1 || width < 1) {
    std::fprintf(stderr, "usage: restore GRAPH HEIGHT WIDTH < frames > restored\n");
    return 2;
  }
  try {
    Restorer restore(words[1]);
    std::vector<uint8_t> frame(height * width * 3);
    while (std::fread(frame.data(), 1, frame.size(), stdin) == frame.size()) {
      const Ort::Value restored = restore(frame, height, width);
      if (std::fwrite(restored.GetTensorData<uint8_t>(), 1, frame.size(), stdout) != frame.size()) return 1;
    }
  } catch (const Ort::Exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return std::fflush(stdout) ? 1 : 0;
}
