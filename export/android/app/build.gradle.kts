import javax.inject.Inject
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "tfdistill.kit.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "tfdistill.kit.app"
        minSdk = 24 // LiteRT's lowest
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        // LiteRT has libraries for these alone.
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            // LiteRT's native code finds its Kotlin classes by name.
            isMinifyEnabled = false
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    // A model that is stored as it is can be mapped into memory.
    androidResources { noCompress += listOf("tflite", "bin") }
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_11 }
}

/** Copies the model, its description, labels and test vectors, which lie at the top of the kit, into the app's assets. */
abstract class KitAssets : DefaultTask() {
    @get:Internal
    abstract val kit: DirectoryProperty

    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val files: ConfigurableFileCollection

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @get:Inject
    abstract val fileSystem: FileSystemOperations

    @TaskAction
    fun copy() {
        if (!kit.file("model.json").get().asFile.exists()) {
            throw GradleException("There is no model.json in this folder. Fill it: tfdistill kit MODEL.tflite --for android --out FOLDER")
        }
        fileSystem.sync {
            from(kit.file("model.json"), kit.file("model.tflite"), kit.file("labels.txt"))
            from(kit.dir("vectors")) { into("vectors") }
            into(assets)
        }
    }
}

val kitAssets = tasks.register<KitAssets>("kitAssets") {
    kit = rootProject.layout.projectDirectory
    files.from(rootProject.files("model.json", "model.tflite", "labels.txt", "vectors"))
}

androidComponents {
    onVariants { variant -> variant.sources.assets?.addGeneratedSourceDirectory(kitAssets, KitAssets::assets) }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.activity)
    implementation(libs.camera.camera2)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.core)
    implementation(libs.litert)
    // Without it the GPU is refused.
    implementation(libs.litert.gpu)
    androidTestImplementation(libs.test.junit)
    androidTestImplementation(libs.test.runner)
}
