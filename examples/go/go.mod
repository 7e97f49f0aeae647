module example.org/ws-handoff-backend

go 1.19
