// What is known of a run before its first task: its parameters, each of its type, and what it can need at most.
include { existing ; handed_over ; json } from '../subworkflows/values'

// nextflow_schema.json, which is made from the same table as the docs: groups of parameters with their types, in order.
def schema() {
    return new groovy.json.JsonSlurper().parseText(file("${projectDir}/nextflow_schema.json", glob: false).text)
}

// Parameters by their types, however they arrived: Nextflow from 26.04 on gives what is on the command line as text, earlier
// ones make numbers of what looks like one: there the text is looked up, as 01 and 1e5 are names, too. What is not of its
// type stays as it is, for the list of problems.
def typed(given) {
    def types = schema()['$defs'].collectEntries { _group, section -> section.properties.collectEntries { name, one -> [name, one.type] } }
    def words = command_words()
    def texts = file_texts()
    return given.collectEntries { name, value -> [name, of_type(types[name], as_written([name], value, words, texts[name]))] }
}

def of_type(type, value) {
    if (type == 'string' && (value instanceof Integer || value instanceof Long || value == true)) {
        return value.toString()
    }
    if (!(value instanceof CharSequence)) {
        return value
    }
    def text = value.toString()
    if (type == 'boolean' && text.toLowerCase() in ['true', 'yes', 'false', 'no']) {
        return text.toLowerCase() in ['true', 'yes']
    }
    if (type == 'integer' && text.isInteger()) {
        return text.toInteger()
    }
    if (type == 'number' && text.isNumber()) {
        return text.isInteger() ? text.toInteger() : text.toBigDecimal()
    }
    return text
}

// A number or a switch as it stands on the command line, else in the parameter file of Nextflow; as it is where it reads the same.
def as_written(path, value, words, in_file) {
    if (value instanceof Map) {
        return value.collectEntries { name, one -> [name, as_written(path + [name], one, words, in_file instanceof Map ? in_file[name] : null)] }
    }
    if (!(value instanceof Number || value instanceof Boolean)) {
        return value
    }
    def typed_in = words[squashed(path.join('.'))]
    def text = typed_in != null && reads_as(typed_in, value) ? typed_in : in_file
    return text instanceof CharSequence && text.toString() != value.toString() ? text.toString() : value
}

def reads_as(text, value) {
    try {
        return value instanceof Boolean ? text.toLowerCase() == value.toString() : Double.valueOf(text) == value.doubleValue() || Double.valueOf(text).isNaN()
    }
    catch (NumberFormatException _e) {
        return false
    }
}

def squashed(name) {
    return name.replaceAll(/[-_]/, '').toLowerCase()
}

// What is given on the command line, by squashed names; the last of several.
def command_words() {
    def words = own_words()
    def given = words.withIndex().findAll { word, _place -> word.startsWith('--') }
    return given.collectEntries { word, place ->
        def name = word.substring(2)
        name.contains('=') ? [squashed(name.substring(0, name.indexOf('='))), name.substring(name.indexOf('=') + 1)] : [squashed(name), words[place + 1]]
    }
}

def own_words() {
    def line = new File('/proc/self/cmdline')
    return line.canRead() ? line.text.split('\0').toList() : ProcessHandle.current().info().arguments().map { found -> found.toList() }.orElse([])
}

// The values of Nextflow's own parameter file as they stand in it.
def file_texts() {
    try {
        return params_file() ? texts_of(yaml().compose(new StringReader(file(params_file(), glob: false).text))) : [:]
    }
    catch (Exception _e) {
        return [:]
    }
}

def texts_of(node) {
    if (node instanceof org.yaml.snakeyaml.nodes.MappingNode) {
        return node.value.collectEntries { one -> [one.keyNode instanceof org.yaml.snakeyaml.nodes.ScalarNode ? one.keyNode.value : one, texts_of(one.valueNode)] }
    }
    return node instanceof org.yaml.snakeyaml.nodes.ScalarNode ? node.value : null
}

def yaml() {
    return new org.yaml.snakeyaml.Yaml(new org.yaml.snakeyaml.constructor.SafeConstructor(new org.yaml.snakeyaml.LoaderOptions()))
}

// How and where tasks run: no part of what is computed, and so of no task's hash.
def configuration() {
    return schema()['$defs'].findAll { _group, section -> section.configuration }.collectMany { _group, section -> section.properties.keySet() }
}

// The files that the parameters come from: the parameter file, or the sample sheet and what it names. As in request.py, a
// name is looked up where the run is started, then beside the sheet.
def parameter_files(given) {
    if (!given.sample_sheet) {
        return given.parameter ? handed_over([file(given.parameter, glob: false)].findAll { found -> found.exists() }) : []
    }
    def sheet = file(given.sample_sheet, glob: false)
    def names = sheet_rows(given).findResults { row -> row.parameters ?: null }.unique()
    return handed_over(([sheet] + names.collect { name -> [file(name, glob: false), sheet.parent.resolve(name)].find { found -> found.exists() } }).findAll { found -> found?.exists() })
}

def sheet_rows(given) {
    def sheet = file(given.sample_sheet, glob: false)
    return sheet.exists() ? sheet.splitCsv(header: true, strip: true, quote: '"') : []
}

// What a run can need at most: what it cannot need is not set up, as that takes time and fills the screen. What cannot be
// read here counts as the most that there is; the preflight says what is wrong with it.
//   first                           a data set may begin with picks whose orientations are searched, by a
//   template, denovo, search_known  template, a de novo model, or from known orientations, but globally
//   map                             a level may begin with a given map
//   polish_only                     a run begins with polishing
//   rungs, cycles                   levels that begin with oriented particles; cycles of polishing
//   ctf_refine, polish, classes     steps of these cycles; 3D classification
//   slabs, slabs_again              picks are chosen by 2D classification, in two rounds
//   imports, places                 other programs' data may be imported; where they are
//   export                          picks are written at the end
//   free                            extracted particles are removed when their level is done
//   orientations                    the test of orientations at the end of each level
//   sharpening, directions,         steps on the best map
//   compare_template, local_resolution, particle_plot
//   groups                          there may be so many tilt series that they are worked on in groups
def needs_of(documents, given) {
    def recipes = documents.drop(given.sample_sheet ? 1 : 0).collect { found -> parsed(found) } // the sheet is the first file
    recipes += given.resolutions || !recipes ? [given] : []
    def rows = given.sample_sheet ? sheet_rows(given).collect { row -> given + row.findAll { _name, value -> value } } : [given]
    def places = existing(rows.collectMany { row -> ['aretomo', 'imod', 'warp', 'copick'].collect { name -> row[name] } }.findAll().unique().collectMany { name -> places_of(name, documents) })
    def outside = [
        imports: rows.any { row -> row.aretomo || row.imod || row.warp || row.copick }, export: given.export_copick == true, free: given.keep_stacks == false,
        places: places + existing(places.collectMany { place -> roots_of(place) }),
    ]
    if (recipes.any { recipe -> !(recipe instanceof Map) }) {
        return everything() + outside
    }
    def tables = (rows.collect { row -> row.particles } + values_of(recipes + [given], 'pseudo_subtomo', 'in_particles') + values_of(recipes + [given], 'reconstruct', 'in_particles')).findAll().unique()
    def foreign = existing(tables.collectMany { name -> places_of(name, documents) }).findAll { place -> may_be_foreign(place) }
    def picks = rows.findAll { row -> (row.start ?: 'picks') == 'picks' }
    def template = picks.any { row -> row.reference_template }
    def denovo = picks.any { row -> "${row.run_denovo_generation ?: ''}".toLowerCase() in ['true', 'yes', '1'] }
    def search_known = values_of(recipes + [given], 'initial_reference', 'known_search').any { search -> search != 'local' }
    def lists = recipes.collect { recipe -> "${value_of(recipe, 'resolutions', 'binning_list') ?: '4,2,1'}".findAll(/\d+/) }
    def levels = (lists.collect { list -> list.size() } + [1]).max()
    def cycles = (values_of(recipes + [given], 'polishing', 'cycles') ?: [5]).collect { value -> "${value}".isInteger() ? "${value}".toInteger() : 10 }.max()
    def late = rows.any { row -> (row.start ?: 'picks') != 'picks' }
    def polished = cycles > 0 && (late || lists.any { list -> '1' in list })
    def first = template || denovo || search_known
    def anew = template && levels > 1 && ['test', 'search_anew'].every { field -> switched_on(recipes, given, 'orientations', field, true) }
    return outside + [imports: outside.imports || foreign as boolean, places: outside.places + foreign] + [
        first: first, template: template, denovo: denovo, search_known: search_known,
        map: rows.any { row -> row.start == 'bin1' && row.reference_template } || anew, polish_only: rows.any { row -> row.start == 'polish' },
        rungs: picks && picks.every { row -> row.reference_template || row.run_denovo_generation } && !late ? levels - 1 : levels,
        cycles: polished ? cycles : 0,
        // An empty block is one: all of its fields have defaults.
        ctf_refine: polished && (late || (recipes + [given]).any { recipe -> recipe.ctf_refine != null }),
        polish: polished && (late || (recipes + [given]).any { recipe -> recipe.bayesian_polish != null }),
        slabs: given.run_class2D || values_of(recipes + [given], 'slabs', 'run').any { run -> !("${run}".toLowerCase() in ['no', 'false']) },
        slabs_again: values_of(recipes + [given], 'slabs', 'second_classes').any { number -> "${number}" != '0' },
        classes: given.run_class3D || values_of(recipes + [given], 'classification', 'run').any { run -> !("${run}".toLowerCase() in ['no', 'false']) },
        orientations: switched_on(recipes, given, 'orientations', 'test', true),
        sharpening: switched_on(recipes, given, 'map_analysis', 'sharpening', true),
        directions: switched_on(recipes, given, 'map_analysis', 'directions', true),
        local_resolution: switched_on(recipes, given, 'map_analysis', 'local_resolution', false),
        particle_plot: given.particle_plot == true || switched_on(recipes, given, 'map_analysis', 'particle_plot', false),
        compare_template: template && switched_on(recipes, given, 'map_analysis', 'template', true),
        groups: (rows.collect { row -> row.tomograms } + recipes.collectMany { recipe -> ['pseudo_subtomo', 'refine3D', 'reconstruct'].collect { block -> value_of(recipe, block, 'in_tomograms') } })
            .findAll().unique().any { name -> may_need_groups(name, documents, given.tilt_series_per_task) },
    ]
}

def everything() {
    return [
        first: true, template: true, denovo: true, search_known: true, map: true, polish_only: true, rungs: 8, cycles: 10,
        ctf_refine: true, polish: true, classes: true, groups: true, orientations: true, sharpening: true, slabs: true, slabs_again: true,
        directions: true, compare_template: true, local_resolution: true, particle_plot: true,
    ]
}

def values_of(recipes, block, name) {
    return recipes.collect { recipe -> value_of(recipe, block, name) }.findAll { value -> value != null }
}

// Whether a data set may have a step: what is on the command line holds for all of them.
def switched_on(recipes, given, block, name, standard) {
    def all = value_of(given, block, name)
    def values = all == null ? recipes.collect { recipe -> value_of(recipe, block, name) } : [all]
    return values.any { value -> value == null ? standard : !("${value}".toLowerCase() in ['no', 'false']) }
}

// A field of a block, also where something else than a block was given under its name.
def value_of(recipe, block, name) {
    return recipe[block] instanceof Map ? recipe[block][name] : null
}

def parsed(path) {
    try {
        return json(path)
    }
    catch (Exception e) {
        return e
    }
}

// Whether a table may have more tilt series than one task works on: it has no more than lines that are neither label nor
// keyword. The same default as in planning/groups.py.
def may_need_groups(name, documents, per_task) {
    def table = places_of(name, documents).find { found -> found.exists() }
    def most = "${per_task ?: 50}".isInteger() ? "${per_task ?: 50}".toInteger() : 1
    return !table || table.readLines().count { line -> line.trim() && !(line.trim() ==~ /(_|#|data_|loop_).*/) } > most
}

// Where a file may be that a parameter or one of these documents names.
def places_of(name, documents) {
    return [file("${name}", glob: false)] + documents.collect { found -> found.parent.resolve("${name}") }
}

// The directories of this machine that a copick configuration names, or that lie in it.
def roots_of(place) {
    def found = place.name.endsWith('.json') ? parsed(place) : null
    def names = found instanceof Map ? [found.overlay_root, found.static_root].findAll() : []
    return names.collect { name -> "${name}".replaceFirst('^(local|file)://', '') }.findAll { name -> name.startsWith('/') }
}

// Whether a file may have particles that are not RELION 5's, by its first bytes; the core says whether they are imported.
def may_be_foreign(place) {
    def start = place.isDirectory() ? '' : place.newInputStream().withCloseable { stream -> new String(stream.readNBytes(65536), 'ISO-8859-1') }
    return !start.contains('_rlnCenteredCoordinateXAngst')
}

// No data set may have more steps than are set up: they would be missing without a word.
def within(plan, needs) {
    def mode = plan.initial_reference.mode
    def searched = !plan.oriented && plan.start == 'picks'
    def missing = [
        'levels': (searched ? plan.levels.size() - 1 : plan.levels.size()) > needs.rungs && plan.start != 'polish',
        'a template': searched && mode == 'template' && !needs.template,
        'a de novo model': searched && mode == 'denovo' && !needs.denovo,
        'a search': searched && mode == 'known' && !needs.search_known,
        'a given map': plan.reference && (plan.start == 'bin1' || plan.levels.any { level -> level.refine_anew }) && !needs.map,
        'polishing alone': plan.start == 'polish' && !needs.polish_only,
        'cycles': (plan.polishing ? plan.polishing.cycles : 0) > needs.cycles,
        'CTF refinement': plan.polishing?.ctf_refine && !needs.ctf_refine,
        'polishing': plan.polishing?.polish && !needs.polish,
        '2D classification': plan.slabs && !needs.slabs,
        'a second 2D classification': plan.slabs && plan.slabs.rounds.size() > 1 && !needs.slabs_again,
        'classes': plan.levels.any { level -> level.classification } && !needs.classes,
        'a test of orientations': plan.levels.any { level -> level.orientations } && !needs.orientations,
        'sharpening': plan.map_analysis.sharpening && !needs.sharpening,
        'directions': plan.map_analysis.directions && !needs.directions,
        'local resolution': plan.map_analysis.local_resolution && !needs.local_resolution,
        'a particle plot': plan.map_analysis.particle_plot && !needs.particle_plot,
        'a comparison with the template': plan.map_analysis.template && !needs.compare_template,
        'groups': (plan.levels.any { level -> level.extract.groups > 1 } || (plan.slabs?.cut?.groups ?: 1) > 1) && !needs.groups,
    ].findAll { _name, is -> is }.keySet()
    if (missing) {
        error("${plan.id} needs more steps than are set up (${missing.join(', ')}), a fault of the pipeline's: please report it, with the parameters.")
    }
    return plan
}

// What Nextflow writes into the scripts of tasks and jobs as text: none of it may be more than a word there. What is wrong
// with words, the preflight says. Shell lines are a site's or a person's: a parameter file is data.
def check_words(given, image) {
    def words = [image: image] + ['gpus', 'num_gpus', 'tasks_per_gpu', 'cpus', 'max_lost_tilt_series'].collectEntries { name -> [name, given[name]] }
    def wrong = words.findAll { _name, value -> value != null && !(value.toString() ==~ /[\p{L}\p{N}_.,:=+@%\/~ -]*/) }
    wrong += words.subMap(['image']).findAll { _name, value -> value?.toString()?.contains(' ') }
    def lines = configuration() - ['image', 'relion_load'] // of the scheduler's header
    wrong += given.subMap(lines).findAll { _name, value -> value != null && value.toString() ==~ /(?s).*[\p{Cntrl}`$].*/ }
    if (wrong) {
        error("${wrong.collect { name, value -> "--${name} ${value}" }.join(', ')}: not what a script can hold.\n    expected: one line; of ${words.keySet().join(', ')}: letters, digits and . , : = + @ % / ~ -\n    to do: correct it; an image needs such a path")
    }
    def name = params_file()
    if (name && 'relion_load' in names_in(file(name, glob: false))) {
        error("relion_load is in the parameter file: it is shell lines, and such a file is data.\n    where: ${name}\n    to do: set it with 'py2rely config --relion-load', in site.config, or on the command line")
    }
}

// The file that Nextflow itself read parameters from.
def params_file() {
    def words = own_words()
    def place = words.indexOf('-params-file')
    return place < 0 ? System.getenv('NXF_PARAMS_FILE') : words[place + 1]
}

def names_in(path) {
    def found = path.name.endsWith('.json') ? parsed(path) : yaml().load(path.text)
    return found instanceof Map ? found.keySet() : []
}

// Of what Nextflow's configuration reads, too, the text comes too late where Nextflow has made a number of it.
def check_texts(given, as_number) {
    def types = schema()['$defs'].collectEntries { _group, section -> section.properties.collectEntries { name, one -> [name, one.type] } }
    def wrong = (configuration() + ['outdir', 'gpus']).findAll { name -> types[name] == 'string' && given[name] != null && given[name].toString() != as_number[name].toString() }
    if (wrong) {
        error("Nextflow takes ${wrong.collect { name -> "--${name} ${given[name]}" }.join(', ')} for a number: ${wrong.collect { name -> as_number[name] }.join(', ')}.\n    expected: a name\n    to do: start with NXF_DISABLE_PARAMS_TYPE_DETECTION=true, or choose a name that is no number (of a directory: ./${given[wrong[0]]})")
    }
}

def check_configuration(given, container_engine) {
    def relative = container_engine && given.image && !given.image.toString().startsWith('/') && !given.image.toString().contains('://')
    check_words(given, relative ? "${workflow.launchDir}/${given.image}" : given.image)
    if (container_engine && !given.image) {
        error("There is no image.\n    to do: give --image FILE.sif, or set it once with 'py2rely config --image FILE.sif'; 'make image' builds one.")
    }
    if (container_engine && given.image.toString().startsWith('/') && !file(given.image, glob: false).exists()) {
        error("The image is missing.\n    where: ${given.image}\n    to do: correct --image, or build one with 'make image'.")
    }
    handed_over([workflow.workDir])
    // Nextflow's 'bash -c "cd ..."' in a container reads the directory once more.
    if (container_engine && !(workflow.workDir.toString() ==~ /[\p{L}\p{N}_.,=+@%\/-]*/)) {
        error("Tasks in an image cannot work in this directory.\n    where: ${workflow.workDir}\n    expected: letters, digits and . , = + @ % - _ in its path\n    to do: start in another directory, or name one with -w DIR; data may have any name.")
    }
    if (!(given.gpu_request in ['gres', 'gpus'])) {
        error("gpu_request is '${given.gpu_request}'.\n    expected: gres (--gres=gpu:N) or gpus (--gpus=N)")
    }
    def numbers = ['timeout', 'slurm_memory_per_cpu', 'slurm_queue_size', 'num_gpus', 'cpus'].findAll { name -> given[name] != null && !(given[name] instanceof Number) }
    if (numbers) {
        error("${numbers.collect { name -> "--${name} ${given[name]}" }.join(', ')}: no number.\n    expected: numbers such as 4")
    }
}

// What 'nextflow run . --help' answers: the commands that people need, and the parameters in their groups.
def help_text(command) {
    def groups = schema()['$defs'].collect { _name, section ->
        def lines = section.properties.collect { name, one -> "  --${name.padRight(24)}${one.description}${one.containsKey('default') ? " [${one.default}]" : ''}" }
        "${section.title}\n${lines.join('\n')}"
    }
    return [
        'Sub-tomogram averaging with RELION 5, from aligned tilt series and picks to the best map.',
        "Write the parameter file, check everything, run:\n" +
            "  py2rely prepare relion5-parameters -ts tilt_series.star -p particles.star -ps 1.54 -s C1 -pd 290 -bl 4,2,1\n" +
            "  py2rely check --parameter sta_parameters.json --reference-template ref.mrc\n" +
            "  nextflow run ${command} -profile local --gpus 0,1 --parameter sta_parameters.json --reference_template ref.mrc -resume",
        groups.join('\n\n'),
        "The blocks of the parameter file are parameters, too: --refine3D.ini_high 40. Every field: docs/recipe.md.",
    ].join('\n\n')
}
