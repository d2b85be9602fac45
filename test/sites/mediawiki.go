//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var mediawiki = &site{
	name: "MediaWiki", preset: "mediawiki", first: "/index.php/Main_Page",
	packages: []string{"nginx", "php-fpm", "php-mysql", "php-xml", "php-mbstring", "php-intl", "php-apcu", "php-cli", "php-curl", "mariadb-server", "mariadb-client", "mediawiki"},
	skip:     regexp.MustCompile(`Special:|action=|[?&]oldid=|printable=|/load\.php|/api\.php|/rest\.php|Logout|diff=`),
	volatile: regexp.MustCompile(`(?s)"wgRequestId":"[^"]*"|"wgBackendResponseTime":\d+|"(watch|csrf|patrol)Token":"[^"]*"|<!--.*?-->|"(cputime|walltime|timestamp|cachereport|limitreport|timingprofile)":[^}]*|Cached time: \d+`),
	inside:   `"wgUserName":"` + userName + `"`,

	setUp: func(ctx context.Context, s *stack) (version string, servers []*process, err error) {
		www := filepath.Join(s.dir, "www")
		// What its links lead to, but for the configuration, which is not there.
		if _, err = s.command(ctx, s.dir, "sh", "-c", "cp -rL /usr/share/mediawiki "+www+" 2>/dev/null; rm -rf "+www+"/LocalSettings.php "+www+"/config; cp -r /usr/share/mediawiki/extensions-core/. "+www+"/extensions/; mkdir -p "+www+"/images "+www+"/cache; test -f "+www+"/index.php"); err != nil {
			return "", nil, err
		}
		db, addr, err := s.runMariaDB(ctx, "wiki")
		if err != nil {
			return "", nil, err
		}
		host, port, _ := net.SplitHostPort(addr)
		if _, err = s.command(ctx, www, "php", "maintenance/install.php", "--dbtype=mysql", "--dbserver="+host+":"+port, "--dbname=wiki", "--dbuser=site", "--dbpass=site",
			"--server=http://"+s.public, "--scriptpath=", "--lang=en", "--skins=Vector", "--pass="+password, "A MediaWiki", userName); err != nil {
			return "", nil, err
		}
		settings := filepath.Join(www, "LocalSettings.php")
		old, err := os.ReadFile(settings)
		if err != nil {
			return "", nil, err
		}
		added := strings.NewReplacer("{public}", s.public).Replace(`
# What isrproxy's README asks for.
$wgUseCdn = true;
$wgCdnServers = [ '{public}' ];
$wgInternalServer = $wgServer;
$wgJobRunRate = 0;
`)
		if err = os.WriteFile(settings, append(old, added...), 0o600); err != nil {
			return "", nil, err
		}
		list := ""
		for i := range 60 {
			list += fmt.Sprintf("* [[Article %d]]\n", i+1)
			if _, err = s.write(fmt.Sprintf("articles/Article %d.txt", i+1),
				fmt.Sprintf("'''Article %d''' follows [[Article %d]], and leads to [[Article %d]].\n\n== History ==\n%s\n", i+1, i, i+2, strings.Repeat("This is what the article says. ", 80))); err != nil {
				return "", nil, err
			}
		}
		if _, err = s.write("articles/Main Page.txt", "Welcome.\n"+list); err != nil {
			return "", nil, err
		}
		texts, _ := filepath.Glob(filepath.Join(s.dir, "articles", "*.txt"))
		if _, err = s.command(ctx, www, append([]string{"php", "maintenance/importTextFiles.php", "-u", userName, "--overwrite"}, texts...)...); err != nil {
			return "", nil, err
		}
		version, err = s.command(ctx, www, "php", "maintenance/version.php")
		if err != nil {
			return "", nil, err
		}
		version = regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(version)
		php, err := s.runPHP(ctx)
		if err != nil {
			return "", nil, err
		}
		_, err = s.runNginx(ctx, `
root {dir}/www;
index index.php;
location / { try_files $uri $uri/ /index.php?$args; }
location ~ ^(.+\.php)(/.*)?$ { fastcgi_split_path_info ^(.+\.php)(/.*)$; `+fastCGI+` fastcgi_param PATH_INFO $fastcgi_path_info; }
`)
		return version, []*process{php, db}, err
	},

	login: func(b *browser) error {
		return first(b.open("/index.php?title=Special:UserLogin"), b.fill("#wpName1", userName), b.fill("#wpPassword1", password), b.click("#wpLoginAttempt"), b.open("/index.php/Article_7"))
	},
	edit: func(b *browser, text string) (string, error) {
		return "/index.php/Article_7", first(b.open("/index.php?title=Article_7&action=edit"), b.fill("#wpTextbox1", text), b.click("#wpSave"))
	},
}
