# Print the targets of a Makefile that have a `##` comment above them, with that comment.

/^## / { text = text (text ? "\n" : "") substr($0, 4); next }
text && /^[a-z-]+:/ {
    split($0, target, ":")
    count = split(text, lines, "\n")
    for (i = 1; i <= count; i++) printf "%-17s %s\n", i == 1 ? target[1] : "", lines[i]
}
{ text = "" }
