// Values: what a JSON file says, and how a value becomes a word of a command.

// The maps of JsonSlurper itself fill themselves when they are first read, and two threads that do so at once may find them
// half full: a task's settings would lack an option, and its hash would be another.
def json(path) {
    return new groovy.json.JsonSlurperClassic().parseText(path.text)
}

// One word of a shell command, whatever is in it: names, paths and parameters are data, never text of a script.
def word(value) {
    return "'" + "${value}".replace("'", "'\\''") + "'"
}

// The files of these names that are there, with what links lead to, so that it is bound into containers, too. Names are no
// patterns, whatever is in them.
def existing(names) {
    return handed_over(names.collect { name -> file(name, glob: false) }.findAll { found -> found.exists() }.collectMany { found -> [found, found.toRealPath()] }.unique())
}

// Files as they are, if a task can be handed them: Nextflow writes their names into scripts, and quotes neither variables nor
// patterns nor ends of lines.
def handed_over(files) {
    def wrong = files.findAll { found -> found.toString() =~ /\p{Cntrl}|\$[\p{Alnum}_{@#?!*$-]|[*?]|\[.*\]|\{.*(,|\.\.).*\}/ }
    if (wrong) {
        def shown = wrong.take(3).collect { found -> found.toString().replaceAll(/\p{Cntrl}/, '?') }
        error("Names of files hold what a shell reads as a variable, a pattern or another line: ${shown.join(', ')}.\n    expected: no control characters, no * and ?, no \$ before a letter, no [...] and {..., ...}\n    to do: rename them, or give a link with another name in another directory")
    }
    return files
}

// Apptainer's options that make directories visible besides those of a task's inputs.
def binds_of(directories) {
    return directories.unique().collect { directory -> "-B ${word(directory)}" }.join(' ')
}

// The same of a list or map, which Python reads again.
def json_word(value) {
    return word(groovy.json.JsonOutput.toJson(value))
}
