// The page of the other targets: about 10 KB of HTML. Its text is made of its
// name, so that it is not sent a second time as data.
const lines = Array.from({ length: 112 }, (_, i) => i);

export default function Page({ segment, id }) {
  return (
    <main>
      <h1>{`Page ${id} of ${segment}`}</h1>
      {lines.map((i) => (
        <p key={i}>
          {`Line ${i} of a page, with `}
          <a href={`/page/${(i * 7919) % 1000}`}>a link</a> to another one.
        </p>
      ))}
    </main>
  );
}
