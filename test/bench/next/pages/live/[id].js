import Page from "../../lib/page";
import { read } from "../../lib/origin";

export default Page;

export async function getStaticPaths() {
  const paths = Array.from({ length: 0 }, (_, i) => ({ params: { id: String(i) } }));
  return { paths, fallback: "blocking" };
}

export async function getStaticProps({ params }) {
  return { props: await read("live", params.id), revalidate: 1 };
}
