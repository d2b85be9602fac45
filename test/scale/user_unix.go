//go:build unix

package main

import "syscall"

// asUser lets a process have another user.
func asUser(attr *syscall.SysProcAttr, uid, gid uint32) *syscall.SysProcAttr {
	if attr == nil {
		attr = new(syscall.SysProcAttr)
	}
	attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return attr
}
