// The first half of the two-level CEMA scan, for calls with fewer (row, channel
// block) pairs than cores: the states at the start of every segment of tokens.
// One kernel scans all segments from a zero state without computing y; another
// carries the states from segment to segment with q^segment. The forward kernel
// then runs all segments at once.
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/PackedDocuments.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

class SegmentKernel {
public:
  SegmentKernel(KernelBuilder &k, CemaTile &tile, CemaOp op, int64_t segment,
                Type carryType)
      : k(k), tile(tile), segment(segment), documents(k, readPositions(k, op)),
        zero(k.index(0)) {
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    carries = k.write(carryType, View::Flat);
  }

  void build() {
    Value channelBlocks = k.index(tile.workgroups()),
          pair = k.div(k.workgroup(), channelBlocks);
    Value row = k.rem(pair, k.batch()), index = k.div(pair, k.batch()),
          first = k.mul(index, k.index(segment));
    Value end = k.add(first, k.index(segment)), length = k.length();
    tile.begin(k, k.rem(k.workgroup(), channelBlocks));
    // Nothing comes after the last segment.
    k.when(k.less(end, length), [&] {
      CemaStateScan scan(k, tile, x, /*reverse=*/false);
      scan.begin(q, p);
      Value h = scan.states();
      documents.setRow(row);
      documents.forRuns(
          first, end, [&] { tile.clearStates(h); },
          [&](Value from, Value to) { scan.run(row, from, to); });
      tile.forGroups([&](Value group, Value channel) {
        k.loop(zero, k.index(tile.states), 1, [&](Value n) {
          for (int64_t part : {0, 1})
            tile.store(tile.load(h, {group, n, k.index(part), zero}), carries,
                       {tile.segmentStateOffset(index, row, k.batch(), channel,
                                                n, part)});
        });
      });
    });
  }

private:
  KernelBuilder &k;
  CemaTile &tile;
  int64_t segment;
  PackedDocuments documents;
  Value zero, x, p, q, carries;
};

/// What comes through a whole segment: nothing where a document begins in it,
/// which is where its last token stands below the segment's length.
Complex keepInDocument(KernelBuilder &k, PackedDocuments &documents,
                       Value index, int64_t segment, Complex state) {
  Value last = k.add(k.mul(index, k.index(segment)), k.index(segment - 1));
  Value begins = k.less(documents.position(last), k.index(segment)),
        none = k.constant(0, state.re.getType());
  return {k.select(begins, none, state.re), k.select(begins, none, state.im)};
}

/// In place: the end state of every segment scanned from zero becomes the state
/// at its start. Sums in f64.
Value carryStates(PatternRewriter &rewriter, const LoweringOptions &options,
                  CemaOp op, CemaTile &tile, int64_t segment, Value carried) {
  KernelBuilder k(rewriter, options, op, "cema_carry");
  Value q = k.read(op.getQ()), state = k.read(op.getState());
  PackedDocuments documents(k, readPositions(k, op));
  Value carries = k.update(carried, View::Flat);
  Value h = k.scratch({tile.groupsPerWorkgroup, tile.states, 2, tile.width},
                      tile.element);
  Value channelBlocks = k.index(tile.workgroups()),
        row = k.div(k.workgroup(), channelBlocks), zero = k.index(0);
  tile.begin(k, k.rem(k.workgroup(), channelBlocks));
  tile.loadStates(state, row, h);
  documents.setRow(row);
  Value last = k.sub(k.ceilDiv(k.length(), segment), k.index(1));
  Type f64 = k.b.getF64Type();
  tile.forGroups([&](Value group, Value channel) {
    tile.forCoefficients(
        channel, {}, q, {}, [&](Value n, const CemaTile::Coefficients &c) {
          Complex power = {k.constant(1, tile.wideVector()),
                           k.constant(0, tile.wideVector())},
                  square = {c.qr, c.qi};
          for (int64_t exponent = segment; exponent; exponent /= 2) {
            if (exponent % 2)
              power = multiply(k, power, square);
            if (exponent > 1)
              square = multiply(k, square, square);
          }
          auto offset = [&](Value index, int64_t part) {
            return tile.segmentStateOffset(index, row, k.batch(), channel, n,
                                           part);
          };
          auto put = [&](Value index, ValueRange value) {
            for (int64_t part : {0, 1})
              tile.store(k.toFloat(value[part], tile.element), carries,
                         {offset(index, part)});
          };
          SmallVector<Value> current;
          for (int64_t part : {0, 1})
            current.push_back(
                k.toFloat(tile.load(h, {group, n, k.index(part), zero}), f64));
          current = k.loop(
              zero, last, 1, current,
              [&](Value index, ValueRange before) -> SmallVector<Value> {
                Value re = k.toFloat(tile.load(carries, {offset(index, 0)}),
                                     f64),
                      im = k.toFloat(tile.load(carries, {offset(index, 1)}),
                                     f64);
                put(index, before);
                Complex moved = multiply(k, power, {before[0], before[1]});
                if (documents)
                  moved = keepInDocument(k, documents, index, segment, moved);
                return {k.add(moved.re, re), k.add(moved.im, im)};
              });
          put(last, current);
        });
  });
  double elements = cast<RankedTensorType>(carried.getType()).getNumElements();
  return k.finish({.factor = tile.workgroups(), .outer = plan::Outer::Batch},
                  /*flops=*/4 * elements,
                  /*bytes=*/2 * elements *
                      tile.element.getIntOrFloatBitWidth() / 8)[0];
}

} // namespace

Value mlir::megalodon::buildSegmentStates(PatternRewriter &rewriter,
                                          const LoweringOptions &options,
                                          CemaOp op, int64_t segment) {
  auto type = cast<RankedTensorType>(op.getX().getType());
  int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
          channels = type.getDimSize(2);
  int64_t states = cast<RankedTensorType>(op.getP().getType()).getDimSize(1);
  CemaTile tile(options, computeType(type.getElementType()), channels, states);
  auto carryType = RankedTensorType::get(
      {llvm::divideCeilSigned(length, segment), batch, tile.segmentStateSize()},
      tile.element);
  KernelBuilder k(rewriter, options, op, "cema_segments");
  SegmentKernel(k, tile, op, segment, carryType).build();
  double tokens = double(batch) * length;
  Value carried = k.finish({.factor = tile.workgroups(),
                            .outer = plan::Outer::Batch,
                            .inner = plan::Inner::Length,
                            .divisor = segment},
                           /*flops=*/5.5 * tokens * channels * states,
                           /*bytes=*/tokens * channels *
                               type.getElementTypeBitWidth() / 8)[0];
  return carryStates(rewriter, options, op, tile, segment, carried);
}
