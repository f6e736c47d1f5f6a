// numpy's arrays from their bytes, as far as the page shows them.

const READ = {
  b1: [1, (view, at) => view.getUint8(at) !== 0],
  i1: [1, (view, at) => view.getInt8(at)],
  u1: [1, (view, at) => view.getUint8(at)],
  i2: [2, (view, at, little) => view.getInt16(at, little)],
  u2: [2, (view, at, little) => view.getUint16(at, little)],
  i4: [4, (view, at, little) => view.getInt32(at, little)],
  u4: [4, (view, at, little) => view.getUint32(at, little)],
  i8: [8, (view, at, little) => exact(view.getBigInt64(at, little))],
  u8: [8, (view, at, little) => exact(view.getBigUint64(at, little))],
  f4: [4, (view, at, little) => view.getFloat32(at, little)],
  f8: [8, (view, at, little) => view.getFloat64(at, little)],
};

const exact = (big) => (big >= Number.MIN_SAFE_INTEGER && big <= Number.MAX_SAFE_INTEGER ? Number(big) : String(big));

/** The first `most` items in their order in memory; none of a kind that is not known, or whose bytes are not there. */
export function decoded({ dtype, shape, data }, most) {
  const name = String(dtype).replace(/^[<>|=]/, "");
  if (!Object.hasOwn(READ, name) || typeof data !== "string") return [];
  const [size, read] = READ[name];
  const length = Math.min((Array.isArray(shape) ? shape : [0]).reduce((a, b) => a * b, 1), most);
  const needed = Math.ceil((length * size) / 3) * 4; // characters of Base64
  let raw;
  try {
    raw = atob(data.slice(0, needed));
  } catch {
    return [];
  }
  const view = new DataView(Uint8Array.from(raw, (character) => character.charCodeAt(0)).buffer);
  const little = !String(dtype).startsWith(">");
  return Array.from({ length: Math.min(length, Math.floor(view.byteLength / size)) }, (_, at) => read(view, at * size, little));
}
