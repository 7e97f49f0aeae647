module wssclient

go 1.19
