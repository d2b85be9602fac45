//go:build unix

package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
)

var nextjs = &site{
	name: "Next.js", preset: "nextjs", first: "/",
	skip:     regexp.MustCompile(`/_next/`),
	volatile: regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`),
	inside:   `<p id="who">` + userName,

	setUp: func(ctx context.Context, s *stack) (version string, servers []*process, err error) {
		for name, text := range nextFiles {
			if _, err = s.write("next/"+name, text); err != nil {
				return "", nil, err
			}
		}
		dir := filepath.Join(s.dir, "next")
		os.Setenv("NEXT_TELEMETRY_DISABLED", "1")
		if _, err = s.command(ctx, dir, "npm", "install", "--no-audit", "--no-fund", "next@16", "react@19", "react-dom@19"); err != nil {
			return "", nil, err
		}
		if _, err = s.command(ctx, dir, "node_modules/.bin/next", "build"); err != nil {
			return "", nil, err
		}
		var pkg struct{ Version string }
		b, err := os.ReadFile(filepath.Join(dir, "node_modules/next/package.json"))
		if err == nil {
			err = json.Unmarshal(b, &pkg)
		}
		if err != nil {
			return "", nil, err
		}
		host, port, _ := net.SplitHostPort(s.origin)
		node, err := s.run(ctx, &process{name: "next start", dir: dir, argv: []string{"node", "node_modules/next/dist/bin/next", "start", "-H", host, "-p", port}, ready: listens("tcp", s.origin)})
		return pkg.Version, []*process{node}, err
	},

	login: func(b *browser) error {
		return first(b.open("/account"), b.fill("input[name=user]", userName), b.press("button"),
			b.until(`document.querySelector("#who").innerText == %s`, userName), b.open("/account"))
	},
}

// nextFiles are a small site: a list, articles that are renewed each minute, and an account.
var nextFiles = map[string]string{
	"package.json": `{"name": "site", "private": true}`,
	"app/layout.js": `export const metadata = { title: "Site" };
export default function Layout({ children }) { return <html lang="en"><body>{children}</body></html>; }
`,
	"app/page.js": `import Link from "next/link";
export const revalidate = 60;
export default function Home() {
  return <main><h1>Home</h1><p id="made">{new Date().toISOString()}</p><a href="/account">Account</a>
    <ul>{Array.from({ length: 60 }, (_, i) => <li key={i}><Link prefetch={false} href={"/posts/" + (i + 1)}>Post {i + 1}</Link></li>)}</ul></main>;
}
`,
	"app/posts/[id]/page.js": `import Link from "next/link";
export const revalidate = 60;
export async function generateStaticParams() { return []; }
export default async function Post({ params }) {
  const { id } = await params;
  return <article><h1>Post {id}</h1><p>{"This is the text. ".repeat(150)}</p><p id="made">{new Date().toISOString()}</p><Link href="/">Home</Link></article>;
}
`,
	"app/account/page.js": `import { cookies } from "next/headers";
export default async function Account() {
  const name = (await cookies()).get("user")?.value;
  async function login(form) { "use server"; (await cookies()).set("user", form.get("user")); }
  return <main><h1>Account</h1><p id="who">{name ?? "nobody"}</p><form action={login}><input name="user" /><button>Log in</button></form></main>;
}
`,
}
