//go:build !unix

package main

import "syscall"

// asUser changes nothing: there is no root who would have to be another user.
func asUser(attr *syscall.SysProcAttr, _, _ uint32) *syscall.SysProcAttr { return attr }
