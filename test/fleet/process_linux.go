package main

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// attributes make the system kill a child whose parent has ended, however it has.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// asPostgres lets a program run in a folder, and as the user postgres where this one is
// root's: the server refuses to be.
func asPostgres(cmd *exec.Cmd, dir string) error {
	cmd.Dir, cmd.SysProcAttr = dir, attributes()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}
