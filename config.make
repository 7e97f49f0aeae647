# The part of nginx's Makefile that builds the module; see config.

case $NGX_OBJS in
    /*) ws_handoff_build_dir=$NGX_OBJS ;;
    *)  ws_handoff_build_dir="\$(CURDIR)/$NGX_OBJS" ;;
esac

# Cargo knows what has changed, so that it is asked each time; make links again only if the library is newer then. The "+"
# lets cargo share make's jobs.
cat << END                                                    >> $NGX_MAKEFILE

.PHONY:	ws_handoff_cargo

$ws_handoff_library:	ws_handoff_cargo
	+NGINX_SOURCE_DIR="\$(CURDIR)" NGINX_BUILD_DIR="$ws_handoff_build_dir" \\
		$ws_handoff_cargo rustc --quiet --release --locked \\
		--manifest-path "$ngx_addon_dir/Cargo.toml" --package ngx-handoff-module \\
		--no-default-features --crate-type staticlib \\
		--target-dir "$NGX_OBJS/ws_handoff"

END

# Which of the two files is linked with it: auto/make has no dependencies for a dynamic module without C sources.
case " $DYNAMIC_MODULES " in
    *" ngx_http_ws_handoff_module "*)
        cat << END                                            >> $NGX_MAKEFILE
$NGX_OBJS/ngx_http_ws_handoff_module.so:	$ws_handoff_library

END
    ;;
esac
