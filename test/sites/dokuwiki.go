//go:build unix

package main

import (
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var dokuwiki = &site{
	name: "DokuWiki", preset: "dokuwiki", first: "/doku.php?id=start",
	packages: []string{"nginx", "php-fpm", "php-xml", "php-mbstring", "php-gd", "php-cli", "dokuwiki"},
	skip:     regexp.MustCompile(`[?&]do=|/lib/|/feed\.php|rev=|&idx=|image=`),
	volatile: regexp.MustCompile(`taskrunner\.php\?[^"]*|sectok" value="[^"]*"|sectok=[0-9a-f]+|"sectok":"[^"]*"`),
	inside:   "Logged in as",

	setUp: func(ctx context.Context, s *stack) (version string, servers []*process, err error) {
		if version, err = setUpDokuWiki(ctx, s); err != nil {
			return "", nil, err
		}
		php, err := s.runPHP(ctx)
		if err != nil {
			return "", nil, err
		}
		_, err = s.runNginx(ctx, `
root {dir}/www;
index doku.php;
location / { try_files $uri $uri/ /doku.php?id=$uri&$args; }
location ~ ^/(conf|bin|inc|vendor)/ { return 404; }
location ~ \.php$ { try_files $uri =404; `+fastCGI+` }
`)
		return version, []*process{php}, err
	},

	login: func(b *browser) error {
		return first(b.open("/doku.php?id=start&do=login"), b.fill("input[name=u]", userName), b.fill("input[name=p]", password), b.click("#dw__login button[type=submit]"), b.open("/doku.php?id=article7"))
	},
	edit: func(b *browser, text string) (string, error) {
		return "/doku.php?id=article7", first(b.open("/doku.php?id=article7&do=edit"), b.fill("#wiki__text", "====== Article 7 ======\n"+text+"\n"), b.click("#edbtn__save"))
	},
}

// setUpDokuWiki installs DokuWiki, with 60 articles.
func setUpDokuWiki(ctx context.Context, s *stack) (version string, err error) {
	if _, err = s.command(ctx, s.dir, "sh", "-c", "cp -rL /usr/share/dokuwiki www && cp -rL /etc/dokuwiki conf && mkdir data && cd data && mkdir attic cache index locks log media media_attic media_meta meta pages tmp"); err != nil {
		return "", err
	}
	preload, err := os.ReadFile(filepath.Join(s.dir, "www/inc/preload.php"))
	if err != nil {
		return "", err
	}
	list := ""
	files := map[string]string{
		"www/inc/preload.php": strings.Replace(string(preload), "/etc/dokuwiki/", "{dir}/conf/", 1),
		"conf/local.php":      "<?php\n$conf['title'] = 'A DokuWiki'; $conf['useacl'] = 1; $conf['superuser'] = '@admin'; $conf['savedir'] = '{dir}/data'; $conf['updatecheck'] = 0;\n",
		"conf/acl.auth.php":   "# <?php exit()?>\n*\t@ALL\t1\n*\t@user\t8\n",
		"conf/users.auth.php": fmt.Sprintf("# <?php exit()?>\n%s:%x:%s:editor@example.com:admin,user\n", strings.ToLower(userName), md5.Sum([]byte(password)), userName),
	}
	for i := range 60 {
		list += fmt.Sprintf("  * [[article%d]]\n", i+1)
		files[fmt.Sprintf("data/pages/article%d.txt", i+1)] = fmt.Sprintf("====== Article %d ======\nIt leads to [[article%d]].\n\n===== History =====\n%s\n", i+1, i+2, strings.Repeat("This is what the article says. ", 80))
	}
	files["data/pages/start.txt"] = "====== Start ======\n" + list
	for name, text := range files {
		if path, err := s.write(name, text); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "www/VERSION"))
	return strings.TrimSpace(string(b)), err
}
