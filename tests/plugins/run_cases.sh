#!/bin/sh
# Run the plugin's test program on a GPU: run_cases.sh PLUGIN_FOLDER CASES_FOLDER OUT_FOLDER
#
# It needs only the two folders that `make gpu-plugin-cases` prepared, and the CUDA driver. Each case
# runs in its own process, because an illegal memory access makes the GPU unusable for the rest of a
# process. The result of a case is added to OUT_FOLDER/gpu-plugin.txt before the next one starts. The
# exit code is the largest one of the program: 1 if a check failed, 2 if something is missing, 128 or
# more if a case crashed or took longer than CASE_SECONDS.
set -u
program=$1/nmn_plugin_test library=$1/libnmn_plugin.so cases=$2 results=$3/gpu-plugin.txt

for needed in "$program" "$library" "$cases"; do
    if [ ! -e "$needed" ]; then
        echo "error: The test program and its cases must be there; got no '$needed'." \
            "Run \`make gpu-plugin-cases\`, and copy build/plugin and build/cases here."
        exit 2
    fi
done
mkdir -p "$3" || exit 2

status=0
for folder in "$cases"/*/; do
    printed=$(timeout -s KILL "${CASE_SECONDS:-60}" "$program" "$library" "$folder" 2>&1)
    code=$?
    [ $code -le $status ] || status=$code
    # The program reports the checks of the plugin's interface first, and those of the cases last.
    {
        echo "$(basename "$folder"): exit code $code: $(echo "$printed" | tail -n 1)"
        echo "$printed" | grep '^FAILED' | sed 's/^/    /'
    } | tee -a "$results"
done
exit $status
